# What Troupe's actors say to each other, and how the bytes travel.
#
# The cast. A node is a process; every actor has an Address (role, index). The supervisor starts and ends everything and
# is the only one to raise `attempt`. The conductor decides each step. A loader makes batches. A stage owns the dense
# part of a run of layers for one replica; an expert shard owns some experts of those layers; both are owners: they hold
# weights. A checkpointer writes snapshots; a rollout asks for generated tokens.
#
# Starting is restoring. When all nodes are there the supervisor sends Recover(attempt) to the conductor, who sends
# Inquiry to every owner and shadow; each answers Standing: the version that it holds, whether its gradient for the next
# is complete, and the last Decision it saw. From these the conductor knows the latest version that everybody can come
# to, and sends Restore. An owner finishes the segments under way, applies the Decision that it missed, or asks another
# holder with Fetch, or loads a file; it clears accumulators, ledgers and credits, enters the attempt, answers Restored
# and grants Credit. When all have, work goes on. Start, resume, redo after a loss and fall-back to a checkpoint are all
# this. Stop ends it.
#
# A step. The conductor sends StartStep to the loader; the loader answers StepPlan (the divisors of the losses) and
# sends a TokenBatch per microbatch to the first stage, and to the last when that is another actor. Stages pass
# Activations forward and ActivationGradients back. For each layer with experts a stage dispatches ExpertBatch to every
# shard and combines the ExpertResult that comes back; backward the same. Each replica of a stage adds one part of its
# gradient for all: its twins send it their PartialSums of that part, and it sends them ReducedSums. Users of a shared
# tensor send SharedGradient to its owner, who sends SharedTensor back.
#
# Work and attempts. Every piece of work carries a WorkKey. What carries another attempt than the receiver's is
# dropped. So a redo needs nothing but a new attempt.
#
# Credits. Only requests need credit: a microbatch into a stage (training, evaluation and generation share its slots),
# dispatch forward, dispatch backward, and snapshot parts. The receiver grants Credit(channel, layer, count) in an
# attempt after entering it, and again when it has freed the space. An answer lands in space that the requester
# reserved first, so answers need none; nor do control messages, PartialSums, ReducedSums, SharedGradient and
# SharedTensor, of which a step has a fixed number per peer.
#
# Commit. When its gradients are folded and reduced, and its shadow holds them (ShadowGradient, GradientHeld; where a
# twin in another replica is the copy there is none), an owner sends Vote; when the last vote is in, Decision (a pure
# function of the votes) goes to every owner, who applies its gradient in place and is at the next version. A second
# Decision of the same step is ignored. A Decision that asks for a checkpoint makes the conductor send SnapshotBegin and
# the owners SnapshotPart to the checkpointer, who ends with CheckpointDone.
#
# Evaluation and generation use the same messages and actors under their own WorkKind: StartEvaluation and
# EvaluationLoss; GenerateBatch, GenerateActivations between stages, and Generated. Report is for the person.
#
# Rollouts. Each owner that has come to a version reads back what it computes with and tells the conductor its
# WeightsDigest. Then the conductor sends StartRollout to the rollout buffer, for every rollout that this version must
# sample. The buffer sends SamplePrompts to the rollouts (one a replica); every answer goes as Sampled to the judge and
# as Judged to the buffer, which makes groups, advantages and TokenBatches for the loader, writes the journal, and ends
# with RolloutDone. Where the reference policy counts, or the step comes later than the sampling, the loader gets
# TokenBatches to be scored first, and the last stage answers Scored. A step begins when its rollout is there, and is
# decided when all that its version had to sample are durable. Bounded by what one rollout holds: prompts x samples
# answers.
#
# On the wire. A frame is a header and the payloads. The header is a prelude of 56 bytes, little endian:
#
#   offset  0  magic u32 "TRPE"        16  from node u32            40  payload bytes u64
#           4  version u16             20  from incarnation u32     48  payload crc32c u32 (0 unless flagged)
#           6  flags u16               24  sequence u64             52  to incarnation u32
#           8  header bytes u32        32  acknowledge u64          56  Envelope, Cap'n Proto
#          12  crc32c u32 of the header's other bytes
#
# Flag 1: the payload checksum counts. 56 bytes and nothing else are a bare acknowledgement, which says that its end
# lives: its sequence is the last that was sent, so that a lost message is missed though none follows it. The link layer
# reads the prelude alone: a frame of another incarnation is refused whatever it says.
#
# A payload field below is only its size in bytes. The bytes ride beside, in the order in which fields are declared (a
# nested struct's where it stands), each payload at the next multiple of 64, zeros between. The sizes account for every
# byte, or the frame is refused. A payload whose size has its highest bit (2^63) set is in the GPU's memory of the
# sender and comes to that of the receiver: it counts for no offset, payload bytes or checksum, and rides alone, after
# those before it. What else such a frame needs to be whole is its transport's affair.
#
# Fields and messages are only ever appended. No field has a default but zero.
@0xe863697dc7a3f9ae;

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("troupe::wire");

enum Role { supervisor @0; loader @1; conductor @2; stage @3; expertShard @4; checkpointer @5; rollout @6; shadow @7; rolloutBuffer @8;
  judge @9; }
enum WorkKind { train @0; evaluate @1; generate @2; score @3; reference @4; }
enum Direction { forward @0; backward @1; }
enum Channel { microbatch @0; dispatchForward @1; dispatchBackward @2; snapshot @3; }
enum Verdict { commit @0; skip @1; stop @2; }

struct WorkKey {
  kind @0 :WorkKind;
  direction @1 :Direction;
  step @2 :Int64;        # optimizer step, or number of the evaluation or request
  attempt @3 :UInt32;
  microbatch @4 :Int32;  # global
  layer @5 :Int32;
  chunk @6 :Int32;
}

# ---- Starting, restoring, ending
struct Recover {
  attempt @0 :UInt32;
  version @1 :Int64;
  path @2 :Text;
  weightsOnly @3 :Bool;
  allowanceUs @4 :Int64;  # of wall time; 0: no limit
}
struct Inquiry { attempt @0 :UInt32; }
struct Standing { attempt @0 :UInt32; version @1 :Int64; voted @2 :Bool; decided @3 :Bool; decision @4 :Decision; }
struct Restore {
  version @0 :Int64;
  attempt @1 :UInt32;
  path @2 :Text;
  weightsOnly @3 :Bool;
  sourceRole @4 :Role;  # supervisor: nobody, load
  sourceIndex @5 :UInt32;
  decided @6 :Bool;
  checkpoint @7 :Bool;
  decision @8 :Decision;
}
struct Fetch { version @0 :Int64; attempt @1 :UInt32; part @2 :Int32; }
struct ShadowGradient { step @0 :Int64; attempt @1 :UInt32; sums @2 :UInt64; }
struct GradientHeld { step @0 :Int64; attempt @1 :UInt32; }
struct Restored { version @0 :Int64; attempt @1 :UInt32; problem @2 :Text; }
struct Stop { reason @0 :Text; }

# ---- Credits
struct Credit { channel @0 :Channel; layer @1 :Int32; count @2 :Int32; attempt @3 :UInt32; }

# ---- Data
struct StartStep { step @0 :Int64; attempt @1 :UInt32; }
struct StartEvaluation { version @0 :Int64; attempt @1 :UInt32; }
struct StepPlan {
  kind @0 :WorkKind;
  step @1 :Int64;
  attempt @2 :UInt32;
  microbatches @3 :Int32;
  targetTokens @4 :Int64;
  mtpTargetTokens @5 :Int64;
  tokens @6 :Int64;
}
struct TokenBatch {  # payloads i32
  key @0 :WorkKey;
  sequences @1 :Int32;
  length @2 :Int32;
  spansCount @3 :Int32;
  targetTokens @4 :Int64;
  mtpTargetTokens @5 :Int64;
  ids @6 :UInt64;
  targets @7 :UInt64;
  mtpTargets @8 :UInt64;
  positions @9 :UInt64;
  spans @10 :UInt64;
  policy @11 :UInt64;  # (rows, 4) f32: old log-probability, reference's, advantage, weight
  kept @12 :UInt64;
}

# ---- Forward and backward
struct Activations {
  key @0 :WorkKey;
  rows @1 :Int32;
  sequences @2 :Int32;
  length @3 :Int32;
  spansCount @4 :Int32;
  hidden @5 :UInt64;     # (rows, hidden) f32
  positions @6 :UInt64;  # i32
  spans @7 :UInt64;      # i32
}
struct ActivationGradients { key @0 :WorkKey; rows @1 :Int32; gradient @2 :UInt64; }
struct ExpertBatch {
  key @0 :WorkKey;
  rows @1 :Int32;
  lastChunk @2 :Bool;
  counts @3 :List(Int32);  # rows of each expert of the shard
  hidden @4 :UInt64;
  gates @5 :UInt64;
  inputs @6 :UInt64;
}
struct ExpertResult { key @0 :WorkKey; rows @1 :Int32; stashed @2 :Bool; hidden @3 :UInt64; dots @4 :UInt64; }

# ---- Gradients across replicas and shared tensors
struct PartialSums { step @0 :Int64; attempt @1 :UInt32; replica @2 :Int32; sums @3 :UInt64; begin @4 :Int64; }
struct ReducedSums { step @0 :Int64; attempt @1 :UInt32; begin @2 :Int64; sums @3 :UInt64; }
struct SharedGradient { step @0 :Int64; attempt @1 :UInt32; use @2 :Int32; sums @3 :UInt64; }
struct SharedTensor { version @0 :Int64; attempt @1 :UInt32; values @2 :UInt64; digest @3 :UInt64; }

# ---- Commit
struct TensorSquares { name @0 :Text; sum @1 :Float64; bits @2 :UInt32; }
struct ExpertCounts { layer @0 :Int32; counts @1 :List(Int64); }
struct MicrobatchLoss {
  microbatch @0 :Int32;
  lossSum @1 :Float64;
  mtpLossSum @2 :Float64;
  balanceSum @3 :Float64;
  targets @4 :Int64;
  mtpTargets @5 :Int64;
  klSum @6 :Float64;
  clipped @7 :Float64;
  entropySum @8 :Float64;
  gapMax @9 :Float64;
  gaps @10 :Int64;
}
struct WeightsDigest { version @0 :Int64; attempt @1 :UInt32; digest @2 :UInt64; problem @3 :Text; }
struct Vote {
  step @0 :Int64;
  attempt @1 :UInt32;
  squares @2 :List(TensorSquares);
  counts @3 :List(ExpertCounts);
  losses @4 :List(MicrobatchLoss);
}
struct Decision {
  step @0 :Int64;
  attempt @1 :UInt32;
  verdict @2 :Verdict;
  clipScale @3 :Float64;
  learningRate @4 :Float64;
  gradientNorm @5 :Float64;
  counts @6 :List(ExpertCounts);
  checkpoint @7 :Bool;
  last @8 :Bool;
  updates @9 :Int64;  # committed updates, this one included
  state @10 :Text;    # the conductor's after it, JSON
}

# ---- Evaluation and generation
struct EvaluationLoss { key @0 :WorkKey; lossSum @1 :Float64; targets @2 :Int64; counts @3 :List(ExpertCounts); }
struct GenerateBatch {
  key @0 :WorkKey;
  rows @1 :Int32;
  spansCount @2 :Int32;
  samples @3 :Int32;
  temperature @4 :Float32;
  topP @5 :Float32;
  seed @6 :UInt64;
  wantLogits @7 :Bool;
  ids @8 :UInt64;
  positions @9 :UInt64;
  spans @10 :UInt64;
  cacheRows @11 :UInt64;
  sampleRows @12 :UInt64;
  counters @13 :UInt64;
  forksCount @14 :Int32;
  wantKept @15 :Bool;
  forks @16 :UInt64;
}
struct GenerateActivations { batch @0 :GenerateBatch; hidden @1 :UInt64; }
struct Generated {
  key @0 :WorkKey;
  samples @1 :Int32;
  tokens @2 :UInt64;
  logprobs @3 :UInt64;
  logits @4 :UInt64;
  kept @5 :UInt64;
}

# ---- Rollouts
struct StartRollout {
  kind @0 :WorkKind;
  rollout @1 :Int64;
  attempt @2 :UInt32;
  version @3 :Int64;
  digest @4 :UInt64;
}
struct SamplePrompts {
  of @0 :StartRollout;
  firstPrompt @1 :Int32;
  prompts @2 :Int32;
  samples @3 :Int32;
  temperature @4 :Float32;
  topP @5 :Float32;
}
struct Sampled {
  of @0 :StartRollout;
  prompt @1 :Int32;
  sample @2 :Int32;
  greedy @3 :Bool;
  truncated @4 :Bool;
  tokens @5 :UInt64;
  logprobs @6 :UInt64;
  kept @7 :UInt64;
}
struct Judged {
  sampled @0 :Sampled;
  reward @1 :Float64;
  correct @2 :Bool;
  formatted @3 :Bool;
  detail @4 :Text;
}
struct Scored { key @0 :WorkKey; logprobs @1 :UInt64; }
struct RolloutDone { of @0 :StartRollout; durable @1 :Bool; metrics @2 :Text; }

# ---- Checkpoints
struct SnapshotPart {
  version @0 :Int64;
  attempt @1 :UInt32;
  name @2 :Text;
  kind @3 :Int32;
  offset @4 :Int64;   # in elements
  values @5 :UInt64;  # f32
}
struct SnapshotBegin { version @0 :Int64; state @1 :Text; }
struct CheckpointDone { version @0 :Int64; path @1 :Text; problem @2 :Text; }

# ---- To the person
struct Report { kind @0 :Text; json @1 :Text; }

# ---- The inspector
# To the conductor, from whoever looks at the run: don't begin the next step, or only so many, or go on.
struct Pause {
  on @0 :Bool;
  steps @1 :UInt32;            # that are still begun before it holds
}

struct Envelope {
  fromRole @0 :Role;
  fromIndex @1 :UInt32;
  toRole @2 :Role;
  toIndex @3 :UInt32;
  union {
    recover @4 :Recover;
    inquiry @5 :Inquiry;
    standing @6 :Standing;
    restore @7 :Restore;
    restored @8 :Restored;
    fetch @9 :Fetch;
    shadowGradient @10 :ShadowGradient;
    gradientHeld @11 :GradientHeld;
    stop @12 :Stop;
    credit @13 :Credit;
    startStep @14 :StartStep;
    startEvaluation @15 :StartEvaluation;
    stepPlan @16 :StepPlan;
    tokenBatch @17 :TokenBatch;
    activations @18 :Activations;
    activationGradients @19 :ActivationGradients;
    expertBatch @20 :ExpertBatch;
    expertResult @21 :ExpertResult;
    partialSums @22 :PartialSums;
    sharedGradient @23 :SharedGradient;
    sharedTensor @24 :SharedTensor;
    vote @25 :Vote;
    decision @26 :Decision;
    evaluationLoss @27 :EvaluationLoss;
    generateBatch @28 :GenerateBatch;
    generateActivations @29 :GenerateActivations;
    generated @30 :Generated;
    snapshotPart @31 :SnapshotPart;
    snapshotBegin @32 :SnapshotBegin;
    checkpointDone @33 :CheckpointDone;
    report @34 :Report;
    weightsDigest @35 :WeightsDigest;
    startRollout @36 :StartRollout;
    samplePrompts @37 :SamplePrompts;
    sampled @38 :Sampled;
    judged @39 :Judged;
    rolloutDone @40 :RolloutDone;
    scored @41 :Scored;
    pause @45 :Pause;
    reducedSums @46 :ReducedSums;
  }
  id @42 :UInt64;     # for the journal: the message's number in its run,
  cause @43 :UInt64;  # that of the message whose handler posted it (0: nobody's did),
  sentUs @44 :Int64;  # and when, by its sender's clock
}

# What is asked of a node's inspector thread, and its answer: on a stream of their own, each behind its length (u32, little
# endian). Reading needs the run's token where somebody else could ask, control always.
struct InspectRequest {
  token @0 :Text;
  union {
    readSnapshot @1 :Void;
    subscribe @2 :UInt32;      # a snapshot now, and again every so many milliseconds
    readJournal @3 :JournalRange;
    readConfig @4 :Void;
    pause @5 :Pause;           # at a commit
    kill @6 :Void;             # this node's process, at once
    inject @7 :Data;           # a frame, to an actor of this node: marks the run as tainted
  }
}
struct JournalRange {
  first @0 :UInt64;
  most @1 :UInt32;
}
struct InspectReply {
  union {
    refused @0 :Text;
    snapshot @1 :Snapshot;
    journal @2 :JournalPart;
    config @3 :Text;           # as TOML
    said @4 :Text;             # what was done
  }
}
struct JournalPart {
  written @0 :UInt64;          # records, so far
  journal @1 :Data;            # one of those that were asked for, as actors/journal.h lays it out
}
struct Snapshot {
  nowUs @0 :Int64;             # of the node's clock
  board @1 :Data;              # as actors/board.h lays it out
}
