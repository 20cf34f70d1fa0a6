#include "tool/bench_command.h"
#include "tool/check_command.h"
#include "tool/command.h"
#include "tool/compare_command.h"
#include "tool/copy_command.h"
#include "tool/flatten_command.h"
#include "tool/info_command.h"
#include "tool/map_command.h"
#include "tool/measure_command.h"
#include "tool/optimize_command.h"
#include "tool/punch_command.h"
#include "tool/rebase_command.h"
#include "tool/rollback_command.h"
#include "tool/snapshot_command.h"
#include "tool/space_command.h"
#include "tool/trim_command.h"
#include "tool/tune_command.h"

namespace tool {

std::vector<std::unique_ptr<Command>> make_commands() {
  std::vector<std::unique_ptr<Command>> commands;
  commands.push_back(std::make_unique<BenchCommand>());
  commands.push_back(std::make_unique<CheckCommand>());
  commands.push_back(std::make_unique<CompareCommand>());
  commands.push_back(std::make_unique<CopyCommand>());
  commands.push_back(std::make_unique<FlattenCommand>());
  commands.push_back(std::make_unique<InfoCommand>());
  commands.push_back(std::make_unique<MapCommand>());
  commands.push_back(std::make_unique<MeasureCommand>());
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

}  // namespace tool
