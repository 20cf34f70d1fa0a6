#include "tool/report/tune_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/printable.h"
#include "tool/text/join_words.h"
#include "tool/text/json_text.h"

namespace vc::tool {

namespace {

using nlohmann::ordered_json;

std::string disk_line(const libvirt::DiskReport& disk, bool applied) {
  std::string text = printable(disk.target.empty() ? "(no target)" : disk.target);
  if (!disk.source.empty()) text += " " + printable(disk.source);
  text += ": ";
  if (!disk.skipped.empty()) return text + "left alone: " + printable(disk.skipped) + "\n";
  if (disk.changes.empty()) return text + "has the right settings\n";
  std::vector<std::string> changes;
  changes.reserve(disk.changes.size());
  for (const libvirt::Change& it : disk.changes)
    changes.push_back(it.from.empty() ? fmt::format("{}='{}'", it.attribute, it.to)
                                      : fmt::format("{}='{}' (was '{}')", it.attribute, it.to,
                                                    printable(it.from)));
  return text + (applied ? "set " : "would set ") + join_words(changes, ", ") + "\n";
}

struct StateText {
  const char* key;
  std::string words;
};

StateText words_of(appliance::TimerReport::State state, bool applied) {
  using State = appliance::TimerReport::State;
  switch (state) {
    case State::kWasEnabled:
      return {"was-enabled", "fstrim.timer is enabled already"};
    case State::kEnabled:
      if (applied) return {"enabled", "fstrim.timer is enabled from the next boot on"};
      return {"to-be-enabled", "would enable fstrim.timer: use --apply to enable it"};
    case State::kMasked:
      return {"masked", "fstrim.timer is masked, and stays masked"};
    case State::kMissing:
      return {"missing",
              "has no fstrim.timer: scripts/guest of the source has one, with instructions"};
    case State::kWindows:
      return {"windows",
              "Windows must be set up from inside: copy scripts/guest/retrim.ps1 of the source "
              "into the guest, and run as administrator\n  powershell -ExecutionPolicy Bypass "
              "-File retrim.ps1"};
    case State::kUnknown:
      break;
  }
  return {"unknown", "is neither Linux nor Windows: nothing is changed"};
}

}  // namespace

std::string timer_report(const std::vector<appliance::TimerReport>& reports, bool applied) {
  std::string text;
  for (const auto& it : reports)
    text += fmt::format("{}{}: {}\n", printable(it.root),
                        it.product.empty() ? "" : " (" + printable(it.product) + ")",
                        words_of(it.state, applied).words);
  return text;
}

std::string timer_report_json(const std::vector<appliance::TimerReport>& reports, bool applied) {
  ordered_json json;
  json["applied"] = applied;
  json["systems"] = ordered_json::array();
  for (const auto& it : reports) {
    ordered_json one;
    one["root"] = it.root;
    one["product"] = it.product;
    one["timer"] = words_of(it.state, applied).key;
    json["systems"].push_back(std::move(one));
  }
  return json_text(json);
}

std::string tune_report(const TuneResult& result, bool verbose) {
  std::string text;
  for (const libvirt::DiskReport& disk : result.tuning.disks) {
    const bool wanted = disk.skipped.empty() || disk.format == "qcow2" || verbose;
    if (wanted) text += disk_line(disk, result.applied);
    for (const std::string& it : disk.advice)
      text += fmt::format("{}: advice: {}\n", printable(disk.target), printable(it));
  }
  if (result.tuning.disks.empty())
    text += printable(result.name) + ": has no disks\n";
  else if (text.empty())
    text += printable(result.name) + ": has no disk that is qcow2\n";
  for (const std::string& note : result.notes) text += printable(note) + "\n";
  return text;
}

std::string tune_report_json(const TuneResult& result) {
  ordered_json json;
  json["name"] = result.name;
  json["changes"] = result.tuning.changes();
  json["applied"] = result.applied;
  json["running"] = result.running;
  json["disks"] = ordered_json::array();
  for (const libvirt::DiskReport& disk : result.tuning.disks) {
    ordered_json it;
    it["line"] = disk.line;
    it["target"] = disk.target;
    it["bus"] = disk.bus;
    it["source"] = disk.source;
    it["format"] = disk.format;
    if (!disk.skipped.empty()) it["left-alone"] = disk.skipped;
    it["changes"] = ordered_json::array();
    for (const libvirt::Change& change : disk.changes) {
      ordered_json one;
      one["attribute"] = change.attribute;
      one["from"] = change.from.empty() ? ordered_json() : ordered_json(change.from);
      one["to"] = change.to;
      it["changes"].push_back(std::move(one));
    }
    it["advice"] = disk.advice;
    json["disks"].push_back(std::move(it));
  }
  json["windows"] = result.tuning.windows;
  json["notes"] = result.notes;
  json["diff"] = result.diff;
  return json_text(json);
}

}  // namespace vc::tool
