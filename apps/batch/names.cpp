#include "apps/batch/names.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "backend/error.h"

namespace fovea::apps::batch {
namespace {

constexpr size_t kMaxPart = 200;   // of 255 bytes that file systems allow
constexpr size_t kMaxName = 1000;  // of 4096, with the folder before it

bool is_plain(unsigned char c) {
    return c < 0x80 && (std::isalnum(c) || c == '.' || c == '_' || c == '-');
}

std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

// No path in a field's value: what else it has becomes '-'.
std::string plain(const std::string& text) {
    std::string result;
    for (const unsigned char c : text) {
        if (is_plain(c))
            result += static_cast<char>(c);
        else if (!result.empty() && result.back() != '-')
            result += '-';
    }
    while (!result.empty() && (result.back() == '-' || result.back() == '.')) result.pop_back();
    result.erase(0, result.find_first_not_of(".-"));
    return result.empty() ? "-" : result;
}

std::string value_of(const Job& job, const std::string& field) {
    if (field == "id") return job.id;
    if (field == "type") return job.type;
    const auto found = job.options.find(field);
    require(found != job.options.end() && field != "output",
            "no {{{}}} for the name: the job has no such option", field);
    return found->is_string() ? found->get<std::string>() : found->dump();
}

std::string expand(const Job& job, const std::string& inside) {
    const size_t colon = inside.find(':');
    const std::string field = inside.substr(0, colon);
    size_t width = 0;
    if (colon != std::string::npos) {
        const std::string digits = inside.substr(colon + 1);
        const auto [end, error] =
            std::from_chars(digits.data(), digits.data() + digits.size(), width);
        require(error == std::errc() && end == digits.data() + digits.size() && width > 0 &&
                    width <= kMaxPart,
                "{{{}}} in the name: expected a field or field:width, as in {{prompt:40}}", inside);
    }
    if (field == "index") return fmt::format("{:0{}}", job.index, width);
    std::string text = value_of(job, field);
    const auto& of_options = job.options;
    if (width > 0 && of_options.contains(field) && of_options[field].is_number_integer())
        return plain(std::string(text.size() < width ? width - text.size() : 0, '0') + text);
    text = plain(text);
    if (width > 0 && text.size() > width) text = plain(text.substr(0, width));
    return text;
}

// Of Windows, whatever their extension.
bool is_reserved(const std::string& part) {
    const std::string stem = lower(part.substr(0, part.find('.')));
    if (stem == "con" || stem == "prn" || stem == "aux" || stem == "nul") return true;
    return stem.size() == 4 && (stem.starts_with("com") || stem.starts_with("lpt")) &&
           std::isdigit(static_cast<unsigned char>(stem[3]));
}

void check_part(const std::string& part, const std::string& name) {
    require(!part.empty() && part.front() != '.' && part.back() != '.',
            "the name {} leaves the output folder or has a part that begins or ends with a dot",
            name);
    require(part.size() <= kMaxPart, "the name {} has a part of more than {} characters", name,
            kMaxPart);
    require(!is_reserved(part), "the name {} has a part that Windows keeps for devices", name);
    require(std::all_of(part.begin(), part.end(), [](char c) { return is_plain(c) || c == ' '; }) &&
                part.back() != ' ',
            "the name {} found, expected letters, digits, '.', '_', '-' and '/' around fields",
            name);
}

bool has_extension(const std::string& name, const std::string& extension) {
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) return false;
    const std::string own = name.substr(dot);
    const bool clip = extension != ".png";
    return own == extension || (clip && (own == ".mp4" || own == ".webp" || own == ".gif"));
}

// Parents of a name, the nearest first.
std::vector<std::string> folders_of(const std::string& name) {
    std::vector<std::string> folders;
    for (size_t at = name.rfind('/'); at != std::string::npos && at > 0;
         at = name.rfind('/', at - 1))
        folders.push_back(name.substr(0, at));
    return folders;
}

}  // namespace

std::string name_of(const Job& job, const std::string& name_template) {
    std::string name;
    for (size_t at = 0; at < name_template.size();) {
        if (name_template[at] != '{') {
            name += name_template[at++];
            continue;
        }
        const size_t end = name_template.find('}', at);
        require(end != std::string::npos, "the name {} has a {{ without }}", name_template);
        name += expand(job, name_template.substr(at + 1, end - at - 1));
        at = end + 1;
    }
    const std::string extension = extension_of(job);
    if (!has_extension(name, extension)) name += extension;
    require(name.size() <= kMaxName, "the name has more than {} characters", kMaxName);
    require(lower(name.substr(0, name.find('/'))) != "results.jsonl",
            "the name {} has a folder results.jsonl, the file of the results", name);
    for (size_t begin = 0; begin <= name.size();) {
        const size_t end = std::min(name.find('/', begin), name.size());
        check_part(name.substr(begin, end - begin), name);
        begin = end + 1;
    }
    return name;
}

void name_jobs(JobList& list, const std::string& name_template,
               const std::map<std::string, std::string>& taken) {
    // In lower case, as some file systems see them: file → id, and folders → a file in them.
    std::map<std::string, std::string> files, folders;
    const auto claim = [&](const std::string& id, const std::string& file) {
        const std::string key = lower(file);
        const auto [found, is_new] = files.try_emplace(key, id);
        require(is_new || found->second == id, "the name {} is that of job {} as well", file,
                found->second);
        const auto within = folders.find(key);
        require(within == folders.end(), "the name {} is the folder of {}", file,
                within == folders.end() ? "" : within->second);
        for (const auto& folder : folders_of(key)) {
            require(!files.contains(folder), "the name {} has the file of job {} as its folder",
                    file, files.contains(folder) ? files[folder] : "");
            folders.try_emplace(folder, file);
        }
    };
    for (const auto& [id, file] : taken) claim(id, file);
    std::vector<Job> named;
    for (Job& job : list.jobs) {
        try {
            const auto before = taken.find(job.id);
            if (before != taken.end()) {
                job.file = before->second;
            } else {
                const auto own = job.options.find("output");
                require(own == job.options.end() || own->is_string(),
                        "\"output\" found that is no text");
                job.file = name_of(
                    job, own != job.options.end() ? own->get<std::string>() : name_template);
                claim(job.id, job.file);
            }
            named.push_back(std::move(job));
        } catch (const Error& error) {
            list.bad.push_back({job.line, error.what()});
        }
    }
    list.jobs = std::move(named);
    std::stable_sort(list.bad.begin(), list.bad.end(),
                     [](const BadLine& a, const BadLine& b) { return a.line < b.line; });
}

}  // namespace fovea::apps::batch
