// c = A B or A B^T, bfloat16 operands with whole chunks of 16 bytes, c float32 or bfloat16, nothing added: the library's
// part. It thinks in columns: c^T (N, M) = B^T A^T, and a matrix that is row-major here is its transpose there.
#include "kernels/cuda/library.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <optional>
#include <tuple>

#include "kernels/cuda/rows.h"

namespace troupe::cuda {

namespace {

constexpr std::size_t kWorkspace = std::size_t{32} << 20;
constexpr std::uint64_t kTypicalRows = 4096;  // whose best algorithm every number of rows takes
constexpr std::uint32_t kAlignment = 16;      // that of rows_aligned
constexpr int kAskedFor = 16;

void need(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) throw Error("cuda: cuBLASLt: {}: status {}", what, static_cast<int>(status));
}

// The functions that are used, by their own types.
struct Functions {
  explicit Functions(void* from)
      : create(from, "cublasLtCreate"),
        destroy(from, "cublasLtDestroy"),
        make_description(from, "cublasLtMatmulDescInit_internal"),
        describe(from, "cublasLtMatmulDescSetAttribute"),
        make_layout(from, "cublasLtMatrixLayoutInit_internal"),
        make_preference(from, "cublasLtMatmulPreferenceInit_internal"),
        prefer(from, "cublasLtMatmulPreferenceSetAttribute"),
        suggest(from, "cublasLtMatmulAlgoGetHeuristic"),
        ask(from, "cublasLtMatmulAlgoConfigGetAttribute"),
        multiply(from, "cublasLtMatmul") {}

  template <typename F>
  struct Function {
    Function(void* from, const char* name) : call(reinterpret_cast<F*>(dlsym(from, name))) {
      if (call == nullptr) throw Error("cuda: cuBLASLt has no {}; update it", name);
    }
    F* call;
  };
  Function<decltype(cublasLtCreate)> create;
  Function<decltype(cublasLtDestroy)> destroy;
  Function<decltype(cublasLtMatmulDescInit_internal)> make_description;
  Function<decltype(cublasLtMatmulDescSetAttribute)> describe;
  Function<decltype(cublasLtMatrixLayoutInit_internal)> make_layout;
  Function<decltype(cublasLtMatmulPreferenceInit_internal)> make_preference;
  Function<decltype(cublasLtMatmulPreferenceSetAttribute)> prefer;
  Function<decltype(cublasLtMatmulAlgoGetHeuristic)> suggest;
  Function<decltype(cublasLtMatmulAlgoConfigGetAttribute)> ask;
  Function<decltype(cublasLtMatmul)> multiply;
};

cudaDataType_t type_of(const Tensor& x) { return x.dtype == Dtype::f32 ? CUDA_R_32F : CUDA_R_16BF; }

// What cublasLtMatmul wants described, by value.
struct Problem {
  cublasLtMatmulDescOpaque_t how;
  cublasLtMatrixLayoutOpaque_t a, b, c;
};

class CublasLt final : public Library {
 public:
  explicit CublasLt(void* library) : functions_(library) { need(functions_.create.call(&handle_), "opening it"); }
  ~CublasLt() override { functions_.destroy.call(handle_); }
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  bool multiply(const Product& op, Queue& queue) override {
    const bool plain = !op.transpose_a && !op.accumulate && !op.bias && !op.add && !op.a_scaling;
    if (!plain || op.a.dtype != Dtype::bf16 || op.b.dtype != Dtype::bf16) return false;
    if (op.c.elements() == 0 || op.a.cols == 0) return false;
    if (!rows_aligned(op.a) || !rows_aligned(op.b) || !rows_aligned(op.c)) return false;
    const Key key{op.c.cols, op.a.cols, op.a.stride, op.b.stride, op.c.stride, op.transpose_b, op.c.dtype};
    auto known = algorithms_.find(key);
    if (known == algorithms_.end()) known = algorithms_.emplace(key, choose(op)).first;
    if (!known->second) return false;
    Problem problem = describe(op, static_cast<std::uint64_t>(op.c.rows));
    const float one = 1, zero = 0;
    need(functions_.multiply.call(handle_, &problem.how, &one, op.b.data, &problem.b, op.a.data, &problem.a, &zero,
                                  op.c.data, &problem.c, op.c.data, &problem.c, &*known->second,
                                  queue.take_bytes(kWorkspace), kWorkspace, queue.stream()),
         "multiplying");
    return true;
  }

 private:
  // N, K, three strides, b's form, c's type: all that an algorithm may depend on but the number of rows.
  using Key = std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, bool, Dtype>;

  Problem describe(const Product& op, std::uint64_t rows) const {
    Problem problem{};
    need(functions_.make_description.call(&problem.how, sizeof problem.how, CUBLAS_COMPUTE_32F, CUDA_R_32F),
         "a product");
    const cublasOperation_t form = op.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    need(functions_.describe.call(&problem.how, CUBLASLT_MATMUL_DESC_TRANSA, &form, sizeof form), "its form");
    const auto layout = [&](cublasLtMatrixLayoutOpaque_t& to, const Tensor& x, std::uint64_t count) {
      need(functions_.make_layout.call(&to, sizeof to, type_of(x), static_cast<std::uint64_t>(x.cols), count, x.stride),
           "a matrix");
    };
    layout(problem.a, op.a, rows);
    layout(problem.b, op.b, static_cast<std::uint64_t>(op.b.rows));
    layout(problem.c, op.c, rows);
    return problem;
  }

  // The first suggested one that doesn't split K; none: the key is never the library's.
  std::optional<cublasLtMatmulAlgo_t> choose(const Product& op) {
    Problem problem = describe(op, kTypicalRows);
    cublasLtMatmulPreferenceOpaque_t wishes{};
    need(functions_.make_preference.call(&wishes, sizeof wishes), "wishes");
    const auto wish = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      need(functions_.prefer.call(&wishes, what, &value, sizeof value), "a wish");
    };
    wish(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspace});
    wish(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    for (const auto matrix : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
      wish(matrix, kAlignment);
    std::array<cublasLtMatmulHeuristicResult_t, kAskedFor> found{};
    int count = 0;
    const cublasStatus_t status = functions_.suggest.call(handle_, &problem.how, &problem.b, &problem.a, &problem.c,
                                                          &problem.c, &wishes, kAskedFor, found.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) return std::nullopt;
    need(status, "choosing an algorithm");
    for (int i = 0; i < count; ++i) {
      const cublasLtMatmulHeuristicResult_t& one = found[static_cast<std::size_t>(i)];
      std::int32_t parts = 0;
      std::size_t written = 0;
      need(functions_.ask.call(&one.algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts, &written),
           "an algorithm's parts of K");
      if (one.state == CUBLAS_STATUS_SUCCESS && parts <= 1) return one.algo;
    }
    return std::nullopt;
  }

  Functions functions_;
  cublasLtHandle_t handle_ = nullptr;
  std::map<Key, std::optional<cublasLtMatmulAlgo_t>> algorithms_;
};

}  // namespace

// It stays open: what it started on the GPU outlives any owner.
std::unique_ptr<Library> open_library() {
  void* library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error("cuda: {}; leave products to Troupe's own kernels", dlerror());
  return std::make_unique<CublasLt>(library);
}

}  // namespace troupe::cuda
