# Writes OUT, a source with the bytes of every file in FOLDER: cmake -DFOLDER=launcher/web -DOUT=page.cc -P embed.cmake
file(GLOB files RELATIVE ${FOLDER} ${FOLDER}/*)
list(FILTER files EXCLUDE REGEX "^\\.")
list(SORT files)
set(arrays "")
set(table "")
set(number 0)
foreach(name ${files})
  file(READ ${FOLDER}/${name} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "(0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,0x..,)" "\\1\n" bytes "${bytes}")
  string(APPEND arrays "constexpr unsigned char kFile${number}[] = {\n${bytes}0};\n")
  string(APPEND table "      file(\"${name}\", kFile${number}, sizeof kFile${number} - 1),\n")
  math(EXPR number "${number} + 1")
endforeach()
file(WRITE ${OUT}.part "// Made by embed.cmake of what is in launcher/web.
#include \"launcher/inspect/page_files.h\"

namespace troupe {

namespace {

PageFile file(std::string_view name, const unsigned char* bytes, std::size_t size) {
  return {name, {reinterpret_cast<const char*>(bytes), size}};
}

${arrays}
}  // namespace

const std::vector<PageFile>& page_files() {
  static const std::vector<PageFile> kFiles{
${table}  };
  return kFiles;
}

}  // namespace troupe
")
file(RENAME ${OUT}.part ${OUT})
