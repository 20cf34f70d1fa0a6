#include "tool/commands/bench_command.h"
#include "tool/commands/check_command.h"
#include "tool/commands/command.h"
#include "tool/commands/compact_command.h"
#include "tool/commands/compare_command.h"
#include "tool/commands/copy_command.h"
#include "tool/commands/flatten_command.h"
#include "tool/commands/info_command.h"
#include "tool/commands/map_command.h"
#include "tool/commands/measure_command.h"
#include "tool/commands/nightly_command.h"
#include "tool/commands/optimize_command.h"
#include "tool/commands/punch_command.h"
#include "tool/commands/rebase_command.h"
#include "tool/commands/rollback_command.h"
#include "tool/commands/snapshot_command.h"
#include "tool/commands/space_command.h"
#include "tool/commands/trim_command.h"
#include "tool/commands/tune_command.h"

namespace vc::tool {

std::vector<std::unique_ptr<Command>> make_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(std::make_unique<BenchCommand>());
  commands.push_back(std::make_unique<CheckCommand>());
  commands.push_back(std::make_unique<CompactCommand>());
  commands.push_back(std::make_unique<CompareCommand>());
  commands.push_back(std::make_unique<CopyCommand>());
  commands.push_back(std::make_unique<FlattenCommand>());
  commands.push_back(std::make_unique<InfoCommand>());
  commands.push_back(std::make_unique<MapCommand>());
  commands.push_back(std::make_unique<MeasureCommand>());
  commands.push_back(std::make_unique<NightlyCommand>());
  commands.push_back(std::make_unique<OptimizeCommand>());
  commands.push_back(std::make_unique<PunchCommand>());
  commands.push_back(std::make_unique<RebaseCommand>());
  commands.push_back(std::make_unique<RollbackCommand>());
  commands.push_back(std::make_unique<SnapshotCommand>());
  commands.push_back(std::make_unique<SpaceCommand>());
  commands.push_back(std::make_unique<TrimCommand>());
  commands.push_back(std::make_unique<TuneCommand>());
  return commands;
}

}  // namespace vc::tool
