#include "vision/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/error.h"

namespace fovea {

namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr size_t kMaxRank = 8;

struct TypeRow {
    StoredType type;
    std::string_view name;
    size_t bytes;
};
constexpr std::array<TypeRow, 8> kTypes = {{{StoredType::F32, "F32", 4},
                                            {StoredType::F16, "F16", 2},
                                            {StoredType::BF16, "BF16", 2},
                                            {StoredType::I8, "I8", 1},
                                            {StoredType::U8, "U8", 1},
                                            {StoredType::I32, "I32", 4},
                                            {StoredType::I64, "I64", 8},
                                            {StoredType::BOOL, "BOOL", 1}}};

/// Text of the file as it may be shown on a terminal: control characters out, long text cut.
std::string printable(std::string_view text) {
    constexpr size_t kLongest = 120;
    std::string shown(text.substr(0, kLongest));
    std::replace_if(
        shown.begin(), shown.end(),
        [](unsigned char letter) { return letter < 0x20 || letter == 0x7f; }, '?');
    return text.size() > kLongest ? shown + "…" : shown;
}

struct Entry {
    std::optional<StoredType> type;
    std::optional<std::vector<int64_t>> shape;
    std::optional<std::vector<uint64_t>> offsets;
};

/// Receives the JSON reader's events. A handler that returns false ends the reading; `problem` says
/// why.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
  public:
    std::map<std::string, Entry, std::less<>> entries;
    std::map<std::string, std::string> metadata;
    std::string problem;

    bool start_object(size_t) override {
        switch (place_) {
            case Place::start:
                place_ = Place::top;
                return true;
            case Place::top_value:
                place_ = is_metadata_ ? Place::metadata : Place::entry;
                return true;
            default:
                return refuse("an object");
        }
    }

    bool end_object() override {
        if (place_ == Place::entry) {
            const auto& [type, shape, offsets] = entry_->second;
            if (!type) return stop(entry_->first, "has no dtype");
            if (!shape) return stop(entry_->first, "has no shape");
            if (!offsets) return stop(entry_->first, "has no data_offsets");
        }
        place_ = place_ == Place::top ? Place::end : Place::top;
        return true;
    }

    bool key(string_t& name) override {
        key_ = name;
        switch (place_) {
            case Place::top:
                place_ = Place::top_value;
                return name == "__metadata__" ? begin_metadata() : begin_entry(name);
            case Place::metadata: {
                const auto [position, added] = metadata.emplace(name, "");
                metadata_value_ = &position->second;
                if (!added) return stop(key_, "appears twice in __metadata__");
                place_ = Place::metadata_value;
                return true;
            }
            default:
                return begin_field(name);
        }
    }

    bool string(string_t& text) override {
        if (place_ == Place::metadata_value) {
            *metadata_value_ = std::move(text);
            place_ = Place::metadata;
            return true;
        }
        if (place_ != Place::type) return refuse("a string");
        for (const TypeRow& row : kTypes)
            if (row.name == text) entry_->second.type = row.type;
        place_ = Place::entry;
        if (entry_->second.type) return true;
        return stop(entry_->first, "has the dtype " + printable(text) + ", which is not supported");
    }

    bool start_array(size_t) override {
        if (place_ == Place::shape_value) {
            place_ = Place::shape;
            return true;
        }
        if (place_ != Place::offsets_value) return refuse("a list");
        place_ = Place::offsets;
        return true;
    }

    bool end_array() override {
        if (place_ == Place::offsets && entry_->second.offsets->size() != 2)
            return stop(entry_->first, "needs two data_offsets, begin and end");
        place_ = Place::entry;
        return true;
    }

    bool number_unsigned(number_unsigned_t number) override {
        if (place_ == Place::shape) {
            if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
                return stop(entry_->first, "has a dimension above 2^63");
            entry_->second.shape->push_back(static_cast<int64_t>(number));
            return entry_->second.shape->size() <= kMaxRank ||
                   stop(entry_->first, "has more than 8 dimensions");
        }
        if (place_ != Place::offsets) return refuse("a number");
        entry_->second.offsets->push_back(number);
        return entry_->second.offsets->size() <= 2 ||
               stop(entry_->first, "has more than two data_offsets");
    }

    bool null() override { return refuse("null"); }
    bool boolean(bool) override { return refuse("a truth value"); }
    bool number_integer(number_integer_t) override { return refuse("a negative number"); }
    bool number_float(number_float_t, const string_t&) override {
        return refuse("a number that is no 64-bit integer");
    }
    bool binary(binary_t&) override { return refuse("binary data"); }
    bool parse_error(size_t position, const std::string&,
                     const nlohmann::json::exception& error) override {
        problem = fmt::format("its header is not valid JSON at byte {}: {}", position,
                              printable(error.what()));
        return false;
    }

  private:
    /// Where in the header the reader stands; `x_value` expects the value of key x.
    enum class Place {
        start,
        top,
        top_value,
        metadata,
        metadata_value,
        entry,
        type,
        shape_value,
        shape,
        offsets_value,
        offsets,
        end
    };

    bool begin_metadata() {
        if (std::exchange(seen_metadata_, true)) return stop(key_, "appears twice");
        is_metadata_ = true;
        return true;
    }

    bool begin_entry(const std::string& name) {
        is_metadata_ = false;
        const auto [position, added] = entries.try_emplace(name);
        entry_ = position;
        return added || stop(key_, "appears twice");
    }

    bool begin_field(const std::string& name) {
        auto& [type, shape, offsets] = entry_->second;
        if (name == "dtype") {
            place_ = Place::type;
            return !type || stop(entry_->first, "has two fields " + key_);
        }
        if (name == "shape") {
            place_ = Place::shape_value;
            if (shape) return stop(entry_->first, "has two fields " + key_);
            shape.emplace();
            return true;
        }
        if (name == "data_offsets") {
            place_ = Place::offsets_value;
            if (offsets) return stop(entry_->first, "has two fields " + key_);
            offsets.emplace();
            return true;
        }
        return stop(entry_->first, "has the unknown field " + printable(name));
    }

    bool stop(std::string_view subject, std::string_view what) {
        problem = fmt::format("{} {}", printable(subject), what);
        return false;
    }

    bool refuse(std::string_view found) {
        problem = fmt::format("its header has {} where the format has none", found);
        if (!key_.empty()) problem += fmt::format(" (near {})", printable(key_));
        return false;
    }

    Place place_ = Place::start;
    bool is_metadata_ = false, seen_metadata_ = false;
    std::string key_;
    std::string* metadata_value_ = nullptr;
    std::map<std::string, Entry, std::less<>>::iterator entry_;
};

/// Bytes a tensor of this shape takes, or nothing when the number overflows.
std::optional<uint64_t> byte_count(std::span<const int64_t> shape, StoredType type) {
    uint64_t count = byte_size(type);
    for (const int64_t length : shape)
        if (__builtin_mul_overflow(count, static_cast<uint64_t>(length), &count)) return {};
    return count;
}

}  // namespace

size_t byte_size(StoredType type) {
    return kTypes[static_cast<size_t>(type)].bytes;
}

std::string_view type_name(StoredType type) {
    return kTypes[static_cast<size_t>(type)].name;
}

std::string shape_text(std::span<const int64_t> shape) {
    std::string text = "(";
    for (const int64_t length : shape) {
        if (text.size() > 1) text += ", ";
        text += length == -1 ? "any" : std::to_string(length);
    }
    return text + ")";
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& name) {
    require(file.size() >= 8, "[weights] {}: expected a safetensors file, found only {} bytes",
            name, file.size());
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data(), 8);
    require(header_bytes <= kMaxHeaderBytes,
            "[weights] {}: expected a safetensors header of at most {} bytes, found a length of {}",
            name, kMaxHeaderBytes, header_bytes);
    require(
        header_bytes <= file.size() - 8,
        "[weights] {}: expected a header of {} bytes, found only {} after its length: cut short?",
        name, header_bytes, file.size() - 8);
    const auto* text = reinterpret_cast<const char*>(file.data() + 8);
    require(header_bytes > 0 && text[0] == '{',
            "[weights] {}: expected a safetensors header beginning with {{", name);
    const std::span<const std::byte> data = file.subspan(8 + header_bytes);

    HeaderReader reader;
    const bool read = nlohmann::json::sax_parse(text, text + header_bytes, &reader);
    require(read, "[weights] {}: {}", name, reader.problem);

    using Range = std::pair<std::array<uint64_t, 2>, std::string_view>;
    std::vector<Range> ranges;
    SafetensorsHeader header{.tensors = {}, .metadata = std::move(reader.metadata)};
    for (auto& [tensor, entry] : reader.entries) {
        const uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
        require(begin <= end && end <= data.size(),
                "[weights] {}: tensor {}: expected bytes within the {} of the data, found {} to {}",
                name, printable(tensor), data.size(), begin, end);
        const std::optional<uint64_t> expected = byte_count(*entry.shape, *entry.type);
        require(expected.has_value() && *expected == end - begin,
                "[weights] {}: tensor {}: expected {} bytes for {} {}, found {}", name,
                printable(tensor), expected ? std::to_string(*expected) : "over 2^64",
                type_name(*entry.type), shape_text(*entry.shape), end - begin);
        ranges.push_back({{begin, end}, tensor});
        header.tensors.emplace(tensor, TensorInfo{*entry.type, std::move(*entry.shape),
                                                  data.subspan(begin, end - begin)});
    }

    std::sort(ranges.begin(), ranges.end());
    uint64_t covered = 0;
    for (const auto& [range, tensor] : ranges) {
        require(range[0] == covered,
                "[weights] {}: tensor {}: expected its data to begin at {}, where the previous "
                "ends, found {}: {}",
                name, printable(tensor), covered, range[0],
                range[0] < covered ? "they overlap" : "there is a hole");
        covered = range[1];
    }
    require(covered == data.size(),
            "[weights] {}: expected {} bytes of data, found {}: bytes no tensor uses", name,
            covered, data.size());
    return header;
}

}  // namespace fovea
