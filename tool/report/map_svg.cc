// Draws a MapPicture as one self-contained SVG file, without scripts and fonts. The colours are
// distinguishable for colour-blind readers, and follow a dark theme.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/printable.h"
#include "base/xml_text.h"
#include "tool/report/map_picture.h"
#include "tool/text/size_text.h"
#include "tool/text/survey_text.h"

namespace vc::tool {

using qcow2::HostUse;

namespace {

// Pixels.
constexpr unsigned kCell = 3;
constexpr unsigned kPlotLeft = 92;
constexpr unsigned kPlotTop = 116;
constexpr unsigned kPlotWidth = MapPicture::kColumns * kCell;
constexpr unsigned kPlotHeight = MapPicture::kRows * kCell;
constexpr unsigned kStrip = 26;  // width of the bars next to the plot
constexpr unsigned kGap = 8;
constexpr unsigned kUseLeft = kPlotLeft + kPlotWidth + kGap;
constexpr unsigned kGuestTop = kPlotTop + kPlotHeight + kGap;
constexpr unsigned kLegendLeft = kUseLeft + kStrip + 28;
constexpr unsigned kWidth = kLegendLeft + 236;
constexpr unsigned kHeight = kGuestTop + kStrip + 92;

constexpr const char* kStyle = R"(
svg { background: #ffffff; font: 13px system-ui, "DejaVu Sans", Helvetica, Arial, sans-serif; }
text { fill: #1d2329; } .soft { fill: #5b6670; } .title { font-size: 20px; font-weight: 600; }
.head { font-weight: 600; } .num { font-variant-numeric: tabular-nums; }
.back { fill: #ffffff; } .plot { fill: #f6f7f9; } .grid { stroke: #dfe3e8; }
.frame { stroke: #aeb7c0; fill: none; }
.data { fill: #1f6fd6; } .compressed { fill: #8a3ffc; } .backing { fill: #a0724a; }
.zero { fill: #9fb8cf; } .nothing { fill: #e9ecf0; } .metadata { fill: #e8a200; }
.reserved { fill: #5ab4c9; } .snapshot { fill: #24a148; } .leaked { fill: #da1e28; }
.free { fill: #dfe3e8; } .faint { opacity: .45; } .half { opacity: .7; }
@media (prefers-color-scheme: dark) {
svg { background: #14181d; } text { fill: #e6eaee; } .soft { fill: #9aa6b2; }
.back { fill: #14181d; } .plot { fill: #1b2128; } .grid { stroke: #2c343d; } .frame { stroke: #55606b; }
.data { fill: #5a9cf5; } .compressed { fill: #b68cff; } .backing { fill: #c79a70; }
.zero { fill: #5f7a94; } .nothing { fill: #262e36; } .metadata { fill: #f5bd3d; }
.reserved { fill: #3f93a8; } .snapshot { fill: #4ccb74; } .leaked { fill: #ff6a70; }
.free { fill: #343d47; }
}
)";

struct Kind {
  const char* css;
  const char* name;
};
constexpr std::array<Kind, qcow2::kHostUses> kUses{{
    {"metadata", "metadata"},
    {"data", "data"},
    {"compressed", "compressed data"},
    {"reserved", "reserved, reads as zeros"},
    {"snapshot", "snapshots alone"},
    {"leaked", "leaked"},
    {"free", "free"},
}};
constexpr std::array<Kind, MapPicture::kGuests> kGuestKinds{{
    {"data", "data"},
    {"compressed", "compressed data"},
    {"backing", "in a backing file"},
    {"zero", "zeros"},
    {"nothing", "never written"},
}};

// Escapes names: characters that are invalid in XML or not printable are shown as their bytes.
std::string escaped(std::string_view text) {
  return escape_xml(printable(text));
}

// Shortens a long name at its start: the end of a name is more informative.
std::string shortened(const std::string& text, size_t most) {
  return text.size() <= most ? text : "\u2026" + text.substr(text.size() - most);
}

// Returns a tick distance for about `wanted` ticks in `size`: a power of two.
uint64_t tick_step(uint64_t size, unsigned wanted) {
  return std::bit_ceil(std::max<uint64_t>(1, size / wanted));
}

}  // namespace

class MapSvg {
 public:
  explicit MapSvg(const MapPicture& picture) : it_(picture), subject_(picture.subject_) {}

  std::string draw() {
    out_ = fmt::format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" "
        "viewBox=\"0 0 {0} {1}\" role=\"img\">\n<title>{2}</title>\n<style>{3}</style>\n"
        "<rect class=\"back\" width=\"{0}\" height=\"{1}\"/>\n",
        kWidth, kHeight, escaped(subject_.title), kStyle);
    heading();
    axes();
    plot();
    use_strip();
    guest_strip();
    legend();
    return out_ + "</svg>\n";
  }

 private:
  void text(double x, double y, const char* css, const std::string& content,
            const char* more = "") {
    out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\"{}>{}</text>\n", x, y, css,
                        more, escaped(content));
  }

  void heading() {
    text(kPlotLeft, 36, "title", shortened(subject_.title, 80));
    std::string line = fmt::format("disk {}", human_size(subject_.disk_size));
    if (subject_.file_size > 0)
      line += fmt::format("  \u00b7  file {}", human_size(subject_.file_size));
    if (it_.survey_ && subject_.cluster_size > 0) {
      const uint64_t size = subject_.cluster_size;
      line += fmt::format("  \u00b7  live {}  \u00b7  allocated {}  \u00b7  clusters of {}",
                          human_size(it_.survey_->live() * size),
                          human_size(it_.survey_->allocated() * size), human_size(size));
    }
    text(kPlotLeft, 60, "soft", line);
    if (it_.survey_)
      text(kPlotLeft, 82, "soft",
           "fragmentation: " +
               order_text(
                   it_.survey_->order,
                   qcow2::Geometry(static_cast<unsigned>(std::bit_width(subject_.cluster_size)) - 1,
                                   false)));
    text(kPlotLeft, kPlotTop - 10, "soft",
         "Each mark is data: across, its offset in the guest's disk; up, its offset in the file.  "
         "Data in order is a rising line.");
  }

  void axes() {
    out_ += fmt::format("<rect class=\"plot\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                        kPlotLeft, kPlotTop, kPlotWidth, kPlotHeight);
    const double bottom = kPlotTop + kPlotHeight;
    if (subject_.disk_size > 0) {
      const uint64_t step = tick_step(subject_.disk_size, 9);
      for (uint64_t at = 0; at <= subject_.disk_size; at += step) {
        const double x = kPlotLeft + position(at, subject_.disk_size, kPlotWidth);
        out_ += line(x, kPlotTop, x, bottom);
        text(x, kGuestTop + kStrip + 18, "soft num", tick(at), " text-anchor=\"middle\"");
        if (step > UINT64_MAX - at) break;
      }
    }
    if (subject_.file_size > 0) {
      const uint64_t step = tick_step(subject_.file_size, 7);
      for (uint64_t at = 0; at <= subject_.file_size; at += step) {
        const double y = bottom - position(at, subject_.file_size, kPlotHeight);
        out_ += line(kPlotLeft, y, kPlotLeft + kPlotWidth, y);
        text(kPlotLeft - 8, y + 4, "soft num", tick(at), " text-anchor=\"end\"");
        if (step > UINT64_MAX - at) break;
      }
    }
    text(kPlotLeft + kPlotWidth / 2.0, kGuestTop + kStrip + 42, "head",
         "offset in the guest's disk", " text-anchor=\"middle\"");
    const double middle = kPlotTop + kPlotHeight / 2.0;
    text(
        20, middle, "head", "offset in the file",
        fmt::format(" text-anchor=\"middle\" transform=\"rotate(-90 20 {:.1f})\"", middle).c_str());
  }

  static double position(uint64_t at, uint64_t size, unsigned pixels) {
    return static_cast<double>(at) / static_cast<double>(size) * pixels;
  }
  static std::string tick(uint64_t at) { return at == 0 ? "0" : human_size(at); }
  static std::string line(double x1, double y1, double x2, double y2) {
    return fmt::format(
        "<line class=\"grid\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", x1, y1,
        x2, y2);
  }

  // Draws one path per colour and strength. Adjacent cells of a row form one rectangle.
  void plot() {
    if (subject_.disk_size == 0 || subject_.file_size == 0) return;
    // Maximum of one cell: a whole row of the file, or a whole column of the disk.
    const double most = std::min(static_cast<double>(subject_.file_size) / MapPicture::kRows,
                                 static_cast<double>(subject_.disk_size) / MapPicture::kColumns);
    std::array<std::array<std::string, 3>, 2> paths;
    for (unsigned row = 0; row < MapPicture::kRows; ++row) {
      int last = -1;
      unsigned begin = 0;
      for (unsigned column = 0; column <= MapPicture::kColumns; ++column) {
        const int now = column < MapPicture::kColumns ? shade(row, column, most) : -1;
        if (now == last) continue;
        if (last >= 0)
          paths[static_cast<size_t>(last) / 3][static_cast<size_t>(last) % 3] +=
              rectangle(begin, row, column - begin);
        last = now;
        begin = column;
      }
    }
    constexpr std::array<const char*, 3> kStrength{" faint", " half", ""};
    for (size_t kind = 0; kind < 2; ++kind)
      for (size_t strength = 0; strength < 3; ++strength)
        if (!paths[kind][strength].empty())
          out_ +=
              fmt::format("<path class=\"{}{}\" d=\"{}\"/>\n", kind == 0 ? "data" : "compressed",
                          kStrength[strength], paths[kind][strength]);
    out_ += fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                        kPlotLeft, kPlotTop, kPlotWidth, kPlotHeight);
  }

  // Returns the path of a cell; -1 if the cell is empty.
  int shade(unsigned row, unsigned column, double most) const {
    const auto& cell = it_.cells_[size_t{row} * MapPicture::kColumns + column];
    const uint64_t bytes = cell.plain + cell.compressed;
    if (bytes == 0) return -1;
    const double share = static_cast<double>(bytes) / most;
    const int strength = share < 0.1 ? 0 : share < 0.4 ? 1 : 2;
    return (cell.compressed > cell.plain ? 3 : 0) + strength;
  }
  static std::string rectangle(unsigned column, unsigned row, unsigned columns) {
    return fmt::format("M{} {}h{}v{}h-{}z", kPlotLeft + column * kCell,
                       kPlotTop + kPlotHeight - (row + 1) * kCell, columns * kCell, kCell,
                       columns * kCell);
  }

  // Draws the shares of each bin, side by side along `x` or stacked.
  template <size_t N>
  void bins(const std::vector<std::array<uint64_t, N>>& all, const std::array<Kind, N>& kinds,
            bool upright) {
    std::array<std::string, N> paths;
    for (size_t i = 0; i < all.size(); ++i) {
      double sum = 0;
      for (const uint64_t part : all[i]) sum += static_cast<double>(part);
      if (sum == 0) continue;
      double at = 0;
      for (size_t kind = 0; kind < N; ++kind) {
        if (all[i][kind] == 0) continue;
        const double share = static_cast<double>(all[i][kind]) / sum * kStrip;
        const auto place = static_cast<unsigned>(i) * kCell;
        paths[kind] +=
            upright ? fmt::format("M{:.1f} {}h{:.1f}v{}h{:.1f}z", kUseLeft + at,
                                  kPlotTop + kPlotHeight - place - kCell, share, kCell, -share)
                    : fmt::format("M{} {:.1f}h{}v{:.1f}h-{}z", kPlotLeft + place, kGuestTop + at,
                                  kCell, share, kCell);
        at += share;
      }
    }
    for (size_t kind = 0; kind < N; ++kind)
      if (!paths[kind].empty())
        out_ += fmt::format("<path class=\"{}\" d=\"{}\"/>\n", kinds[kind].css, paths[kind]);
  }

  void use_strip() {
    if (!it_.survey_) return;
    bins(it_.uses_, kUses, true);
    out_ += fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                        kUseLeft, kPlotTop, kStrip, kPlotHeight);
  }

  void guest_strip() {
    bins(it_.guests_, kGuestKinds, false);
    out_ += fmt::format("<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n",
                        kPlotLeft, kGuestTop, kPlotWidth, kStrip);
  }

  double entry(double y, const Kind& kind, uint64_t bytes, uint64_t of) {
    out_ += fmt::format(
        "<rect class=\"{}\" x=\"{}\" y=\"{:.1f}\" width=\"14\" height=\"14\" rx=\"2\"/>\n",
        kind.css, kLegendLeft, y - 11.5);
    text(kLegendLeft + 22, y, "", kind.name);
    const double percent =
        of == 0 ? 0 : 100.0 * static_cast<double>(bytes) / static_cast<double>(of);
    const bool little = bytes > 0 && percent < 0.05;
    text(kLegendLeft + 22, y + 17, "soft num",
         little ? fmt::format("{} (less than 0.1 %)", human_size(bytes))
                : fmt::format("{} ({:.1f} %)", human_size(bytes), percent));
    return y + 38;
  }

  void legend() {
    double y = kPlotTop + 12;
    if (it_.survey_) {
      text(kLegendLeft, y, "head", "The file (bar on the right)");
      y += 26;
      uint64_t all = 0;
      for (const uint64_t clusters : it_.survey_->clusters) all += clusters;
      for (size_t i = 0; i < kUses.size(); ++i)
        if (const uint64_t clusters = it_.survey_->clusters[i]; clusters > 0)
          y = entry(y, kUses[i], clusters * subject_.cluster_size, all * subject_.cluster_size);
      y += 10;
    }
    text(kLegendLeft, y, "head", "The disk (bar below)");
    y += 26;
    for (size_t i = 0; i < kGuestKinds.size(); ++i)
      if (it_.guest_bytes_[i] > 0)
        y = entry(y, kGuestKinds[i], it_.guest_bytes_[i], subject_.disk_size);
    if (it_.survey_ && it_.survey_->damages > 0)
      text(kPlotLeft, kHeight - 12, "head",
           "The tables are damaged: parts that cannot be read are not drawn.");
    else if (it_.other_files_)
      text(kPlotLeft, kHeight - 12, "soft",
           "Data in backing files is not in the plot: it is stored in another file.");
  }

  const MapPicture& it_;
  const MapPicture::Subject& subject_;
  std::string out_;
};

std::string MapPicture::svg() const {
  return MapSvg(*this).draw();
}

}  // namespace vc::tool
