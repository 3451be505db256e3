#include <gmock/gmock.h>

#include <set>

#include "tests/apps/program.h"

/// What the lines of a batch mean, without a device.
namespace fovea {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Json = nlohmann::json;

class BatchJobs : public testing::Program {};

TEST_F(BatchJobs, EveryBadLineIsNamedAndNothingRuns) {
    const auto jobs = write(
        "jobs.jsonl",
        "{\"type\": \"generate\", \"prompt\": \"a cat\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"steps\": 0}\n"
        "not json\n"
        "\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"stepz\": 3}\n"
        "{\"type\": \"paint\", \"prompt\": \"a dog\"}\n"
        "{\"type\": \"generate\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"size\": \"100x100\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a cat\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"count\": 2}\n"
        "{\"type\": \"video\", \"prompt\": \"a dog\", \"sampler\": \"ddim\"}\n"
        "{\"type\": \"edit\", \"picture\": \"/no/such.png\", \"to\": \"a dog\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"output\": \"../x\"}\n"
        "{\"type\": \"generate\", \"prompt\": [\"a\"]}\n"
        "{\"type\": \"generate\", \"prompt\": \"-a\", \"model\": \"\", \"size\": \"100x100\"}\n"
        "{\"type\": \"generate\", \"prompt\": \"a dog\", \"id\": \"a\\u0000b\"}\n");
    const auto result = run("batch " + jobs + " -o " + path("out"));
    EXPECT_EQ(result.code, 2);
    for (const char* expected :
         {":2: --steps", ":3: no JSON", ":5: \"stepz\" is no option of generate", ":6: \"type\"",
          ":7: [generate] no prompt", ":8: [generate] width 100", ":9: the same job as line 1",
          ":10: \"count\"", ":11: ", ":12: ", ":13: the name ../x", ":14: \"prompt\"",
          ":15: [generate] width 100", ":16: \"id\""})
        EXPECT_THAT(result.err, HasSubstr(expected));
    EXPECT_THAT(result.err, HasSubstr("14 of the lines are bad"));
    EXPECT_EQ(run("batch " + jobs + " --dry-run -o " + path("dry")).code, 2);
    EXPECT_FALSE(fs::exists(path("dry")));
    const auto rest = run("batch " + jobs + " --dry-run --skip-invalid");
    EXPECT_EQ(lines(rest.out).size(), 1u);
}

TEST_F(BatchJobs, WhatOnlySomeCommandsTake) {
    fs::create_directories(path("frames"));
    const auto picture = [&](const std::string& more) {
        return R"({"type": "segment", "picture": ")" + std::string(FOVEA_SOURCE_DIR) +
               R"(/docs/pictures/edit-clips.png", )" + more + "}\n";
    };
    const auto jobs = write("jobs.jsonl", picture(R"("everything": true, "grid": 8)") +
                                              picture(R"("grid": {"point": ["9,9", "8,8"]})") +
                                              picture(R"("point": "9,9", "help": true)"));
    const auto result = run("batch " + jobs + " --dry-run --skip-invalid");
    EXPECT_EQ(lines(result.out).size(), 3u) << result.err;
    EXPECT_THAT(result.err, HasSubstr(":3: \"help\" is no option of segment"));
    const auto nothing = run("batch " + path("frames") + " --dry-run");
    EXPECT_THAT(nothing.err, HasSubstr("is a folder"));
    write("sbatch", "#!/bin/sh\necho 7\n");
    fs::permissions(path("sbatch"), fs::perms::owner_all);
    const auto empty = run("batch " + write("empty.jsonl", "\n") + " --slurm 2 -o " + path("out"),
                           "PATH=" + folder_.string() + ":$PATH " + bare_program());
    EXPECT_EQ(empty.code, 1);
    EXPECT_THAT(empty.err, HasSubstr("has no job"));
}

TEST_F(BatchJobs, GridsDefaultsAndIds) {
    const auto jobs = write("jobs.jsonl",
                            R"({"prompt": "a dog", "seed": 7}
{"defaults": {"steps": 3, "type": "generate"}}
{"prompt": "a cat", "grid": {"cfg": [3, 5], "seed": [1, 2, 3]}}
{"prompt": "a cat", "seed": 4, "steps": 5, "id": "mine"}
{"grid": {"prompt": ["a pizza", "an owl"]}, "id": "two"})");
    const std::string common = "batch " + jobs + " --dry-run --default steps=2 ";
    const auto listed = lines(run(common + "--default type=generate").out);
    ASSERT_EQ(listed.size(), 10u);
    EXPECT_EQ(listed[0]["options"], Json({{"prompt", "a dog"}, {"seed", 7}, {"steps", 2}}));
    EXPECT_EQ(listed[3]["options"],
              Json({{"prompt", "a cat"}, {"cfg", 3}, {"seed", 3}, {"steps", 3}}));
    EXPECT_EQ(listed[4]["options"]["cfg"], 5);
    EXPECT_EQ(listed[7]["id"], "mine");
    EXPECT_EQ(listed[7]["options"]["steps"], 5);
    EXPECT_EQ(listed[9]["id"], "two-2");
    EXPECT_EQ(listed[9]["line"], 5);
    std::set<std::string> ids;
    for (const auto& job : listed) ids.insert(job["id"]);
    EXPECT_EQ(ids.size(), 10u);
    // From the content alone: the place in the file does not matter.
    const auto moved =
        write("moved.jsonl", R"({"steps":2,"seed":7,"type":"generate","prompt":"a dog"})");
    EXPECT_EQ(lines(run("batch " + moved + " --dry-run").out)[0]["id"], listed[0]["id"]);
    EXPECT_EQ(run(common).code, 2);  // the first line has no type
}

TEST_F(BatchJobs, ALineIsTakenWholeAndBadOnesLeaveTheirIds) {
    const auto jobs = write("jobs.jsonl",
                            R"({"defaults": {"type": "generate", "prompt": "a cat"}}
{"grid": {"steps": [4, 0]}, "id": "a"}
{"grid": {"steps": [4, 5]}, "id": "a"}
{"grid": {"seed": [1, 1]}}
{"seed": 1}
{"id": "a-2"})");
    const auto result = run("batch " + jobs + " --dry-run --skip-invalid");
    EXPECT_THAT(result.err, HasSubstr(":2: --steps"));
    EXPECT_THAT(result.err, HasSubstr(":4: the same job as line 4"));
    EXPECT_THAT(result.err, HasSubstr(":6: the same \"id\" \"a-2\" as line 3"));
    const auto listed = lines(result.out);
    ASSERT_EQ(listed.size(), 3u);
    EXPECT_EQ(listed[0]["id"], "a-1");
    EXPECT_EQ(listed[1]["line"], 3);
    EXPECT_EQ(listed[2]["line"], 5);
}

TEST_F(BatchJobs, NamesAreSafe) {
    const auto one = [&](const std::string& job, const std::string& name) {
        const auto jobs = write("one.jsonl", job);
        const auto result = run("batch " + jobs + " --dry-run --name '" + name + "'");
        return result.code == 0 ? lines(result.out)[0]["file"].get<std::string>()
                                : std::to_string(result.code);
    };
    const std::string job =
        R"({"type": "generate", "prompt": "../a \"red\" apple/CON?* été...", "seed": 12, "id": "x"})";
    EXPECT_EQ(one(job, "{id}"), "x.png");
    EXPECT_EQ(one(job, "{index:05}-{seed:4}"), "00000-0012.png");
    EXPECT_EQ(one(job, "{prompt:12}"), "a-red-apple.png");
    EXPECT_EQ(one(job, "{prompt}"), "a-red-apple-CON-t.png");
    EXPECT_EQ(one(job, "sets/{seed}/{id}.png"), "sets/12/x.png");
    for (const char* bad : {"../{id}", "/tmp/{id}", "a/../{id}", "{nothing}", "{id", "con", "a//b",
                            ".hidden", "{id}\\x", "a/.batch/x", "{prompt:0}", "Results.jsonl/{id}"})
        EXPECT_EQ(one(job, bad), "2") << bad;
    EXPECT_EQ(one(job, "results.jsonl"), "results.jsonl.png");
    const auto video = R"({"type": "video", "prompt": "a cat", "id": "v"})";
    EXPECT_EQ(one(video, "{id}"), "v.mp4");
    EXPECT_EQ(one(video, "{id}.webp"), "v.webp");
    // Collisions, also where case does not count or a file would be a folder.
    const auto jobs = write("jobs.jsonl", R"({"type": "generate", "prompt": "a cat", "id": "A"}
{"type": "generate", "prompt": "a dog", "id": "a"}
{"type": "generate", "prompt": "an owl", "id": "b", "output": "A.png/x"})");
    const auto result = run("batch " + jobs + " --dry-run");
    EXPECT_EQ(result.code, 2);
    EXPECT_THAT(result.err, HasSubstr(":2: the name a.png is that of job A"));
    EXPECT_THAT(result.err, HasSubstr(":3: the name A.png/x.png"));
}

// Help texts may change without the file.
Json undescribed(Json json) {
    if (json.is_object()) json.erase("description");
    for (auto& part : json)
        if (part.is_structured()) part = undescribed(part);
    return json;
}

TEST_F(BatchJobs, TheSchemaIsThatOfTheCommands) {
    const auto printed = Json::parse(run("batch --schema").out);
    std::ifstream file(std::string(FOVEA_SOURCE_DIR) + "/docs/batch-jobs.schema.json");
    EXPECT_TRUE(undescribed(printed) == undescribed(Json::parse(file)))
        << "write it again: fovea batch --schema > docs/batch-jobs.schema.json";
    const auto& generate = printed["anyOf"][0]["properties"];
    EXPECT_EQ(generate["steps"]["type"], Json({"integer", "null"}));
    EXPECT_EQ(generate["entropy-scale"]["type"], Json({"boolean", "null"}));
    EXPECT_FALSE(generate.contains("count"));
}

}  // namespace
}  // namespace fovea
