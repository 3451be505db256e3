#include "vision/guidance/guidance.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>

#include "backend/error.h"
#include "backend/ops/blur.h"
#include "backend/patterns/identity.h"
#include "tests/testing.h"
#include "tests/vision/temporary_folder.h"
#include "vision/guidance/combine.h"
#include "vision/guidance/perturb.h"

namespace fovea {
namespace {

using testing::close;
using testing::device;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string error_of(const std::string& text) {
    try {
        parse_guidance(text);
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

TEST(GuidanceParser, ReadsTermsAndTheirOptions) {
    const auto g = parse_guidance(
        "cfg:4,pag:2@blocks=3-5,steps=0.0-0.7,seg:1.5@sigma=2,heads=0+2,softpag:1@u=0.25,every=3");
    ASSERT_EQ(g.terms.size(), 4u);
    EXPECT_EQ(g.of_text()->scale, 4);
    EXPECT_EQ(g.terms[1].kind, GuidanceKind::pag);
    EXPECT_THAT(g.terms[1].blocks, ElementsAre(3, 4, 5));
    EXPECT_FLOAT_EQ(g.terms[1].to, 0.7f);
    EXPECT_EQ(g.terms[1].u, 1);
    EXPECT_EQ(g.terms[2].sigma, 2);
    EXPECT_THAT(g.terms[2].heads, ElementsAre(0, 2));
    EXPECT_EQ(g.terms[3].u, 0.25f);
    EXPECT_EQ(g.terms[3].every, 3);
    EXPECT_EQ(g.most_branches(), 5);
    EXPECT_THAT(parse_guidance("skip:1@blocks=5+0-1+5").terms[0].blocks, ElementsAre(0, 1, 5));
    EXPECT_EQ(parse_guidance("apg:4@eta=0.5,beta=-0.75,norm=7").terms[0].norm, 7);
    EXPECT_EQ(parse_guidance("cfgzero:4@zero=2").zero_steps(), 2);
    EXPECT_TRUE(std::isinf(parse_guidance("seg:2").terms[0].sigma));
}

TEST(GuidanceParser, ErrorsSayWhatIsExpected) {
    EXPECT_THAT(error_of("pagg:2"), HasSubstr("expected one of cfg, apg"));
    EXPECT_THAT(error_of(""), HasSubstr("expected one of cfg, apg"));
    EXPECT_THAT(error_of("cfg:4,,pag:2"), HasSubstr("expected one of"));
    EXPECT_THAT(error_of("pag"), HasSubstr("pag:3"));
    EXPECT_THAT(error_of("pag:two"), HasSubstr("\"two\" found where a scale is expected"));
    EXPECT_THAT(error_of("pag:nan"), HasSubstr("a scale is expected"));
    EXPECT_THAT(error_of("cfg:-3"), HasSubstr("scale -3 found, expected 0 or more"));
    EXPECT_THAT(error_of("cfg:3,pag:inf"), HasSubstr("scale inf found"));
    EXPECT_THAT(error_of("pag:2@u=1"), HasSubstr("blocks, heads, steps, every"));
    EXPECT_THAT(error_of("pag:2@blocks"), HasSubstr("name=value"));
    EXPECT_THAT(error_of("blocks=3"), HasSubstr("begins with an option"));
    EXPECT_THAT(error_of("pag:2@blocks=5-3"), HasSubstr("as in 3-5 or 2+5"));
    EXPECT_THAT(error_of("pag:2@blocks=x"), HasSubstr("where blocks is expected"));
    EXPECT_THAT(error_of("pag:2@steps=0.7"), HasSubstr("0.0-0.7"));
    EXPECT_THAT(error_of("pag:2@steps=0.7-0.1"), HasSubstr("ascend"));
    EXPECT_THAT(error_of("pag:2@every=0"), HasSubstr("1 or more"));
    EXPECT_THAT(error_of("softpag:2@u=2"), HasSubstr("at most 1"));
    EXPECT_THAT(error_of("seg:2@sigma=0"), HasSubstr("above 0"));
    EXPECT_THAT(error_of("cfg:2,apg:3"), HasSubstr("at most one"));
    EXPECT_THAT(error_of("pag:2@heads=list.json"), HasSubstr("softpag"));
    EXPECT_THAT(error_of("softpag:2@heads=/no/such.json"), HasSubstr("headhunt"));
}

TEST(GuidanceParser, HeadsOfAFile) {
    const TemporaryFolder folder;
    const auto write = [&](const std::string& text) {
        const auto path = (folder / "heads.json").string();
        std::ofstream(path) << text;
        return path;
    };
    const auto path =
        write(R"({"heads": [{"layer": 1, "head": 0, "u": 0.5}, {"layer": 0, "head": 1}]})");
    const auto term = parse_guidance("softpag:2@heads=" + path + ",steps=0-0.5").terms[0];
    ASSERT_EQ(term.strengths.size(), 2u);
    EXPECT_EQ(term.strengths[0].u, 0.5f);
    EXPECT_EQ(term.strengths[1].u, 1);
    EXPECT_EQ(term.to, 0.5f);
    EXPECT_EQ(term.scale, 2);
    EXPECT_EQ(parse_guidance("cfg:2,softpag:heads=" + path).terms[1].scale, 3);
    EXPECT_EQ(parse_guidance("softpag:heads=" +
                             write(R"({"scale": 4.5, "heads": [{"layer": 1, "head": 0}]})"))
                  .terms[0]
                  .scale,
              4.5f);
    EXPECT_THAT(error_of("softpag:heads=0+2"), HasSubstr("a scale is expected"));
    EXPECT_THAT(error_of("pag:heads=0+2"), HasSubstr("a scale is expected"));
    EXPECT_THAT(error_of("softpag:2@blocks=1,heads=" + path), HasSubstr("the file alone"));
    for (const char* bad : {"", "[]", "{\"heads\": []}", "{\"heads\": [{\"layer\": 1}]}",
                            "{\"heads\": [{\"layer\": 1, \"head\": 0, \"u\": 3}]}"})
        EXPECT_THAT(error_of("softpag:2@heads=" + write(bad)), HasSubstr("[guidance]")) << bad;
}

TEST(Guidance, TermsActInTheirSteps) {
    const auto g = parse_guidance("cfg:3@steps=0.2-1,pag:2@steps=0.0-0.5,every=2");
    std::vector<int> of_text, perturbed;
    for (int i = 0; i < 10; ++i) {
        if (g.terms[0].is_due(i, 10)) of_text.push_back(i);
        if (g.terms[1].is_due(i, 10)) perturbed.push_back(i);
    }
    EXPECT_THAT(of_text, ElementsAre(2, 3, 4, 5, 6, 7, 8, 9));
    EXPECT_THAT(perturbed, ElementsAre(0, 2, 4));
    EXPECT_TRUE(g.varies(10));
    EXPECT_FALSE(parse_guidance("cfg:3,pag:2").varies(10));
    EXPECT_FALSE(parse_guidance("cfg:1").terms[0].is_due(0, 10));
    EXPECT_FALSE(parse_guidance("pag:0").terms[0].is_due(0, 10));
}

// ---- combination, against the formulas of combine.h in double ----------------------------------

class CombinationTest : public ::testing::Test {
  protected:
    static constexpr size_t kSamples = 2, kEach = 6 * 4;
    static constexpr float kTime = 0.6f;
    using Values = std::vector<float>;

    Values values(uint32_t seed) const { return testing::random_values(kSamples * kEach, seed); }
    Tensor tensor(const Values& x) { return upload(stream_, x, {kSamples, 2, 3, 4}, DType::f32); }
    Values run(Combination& combination, int step, const Velocities& of) {
        return to_host(stream_, combination.velocity(stream_, tensor(z_), kTime, step, 4, of));
    }
    static double dot(const Values& a, const Values& b, size_t sample) {
        double sum = 0;
        for (size_t i = sample * kEach; i < (sample + 1) * kEach; ++i) sum += double{a[i]} * b[i];
        return sum;
    }

    vk::Stream stream_{device()};
    const Values z_ = values(1), c_ = values(2), u_ = values(3), p_ = values(4), r_ = values(5);
};

TEST_F(CombinationTest, Cfg) {
    Combination plain(cfg_guidance(3));
    const auto found = run(plain, 0, {.prompted = tensor(c_), .unprompted = tensor(u_)});
    Values expected;
    for (size_t i = 0; i < c_.size(); ++i) expected.push_back(u_[i] + 3 * (c_[i] - u_[i]));
    EXPECT_TRUE(close(found, expected, {1e-5f, 1e-5f}));
    EXPECT_EQ(run(plain, 0, {.prompted = tensor(c_)}), c_);
}

TEST_F(CombinationTest, PerturbedBranchesAddUpAndHold) {
    Combination all(parse_guidance("cfg:3,pag:2@every=2,steps=0-0.6,seg:0.5"));
    const auto expected = [&](float pag) {
        Values v;
        for (size_t i = 0; i < c_.size(); ++i)
            v.push_back(u_[i] + 3 * (c_[i] - u_[i]) + pag * (c_[i] - p_[i]) +
                        0.5f * (c_[i] - r_[i]));
        return v;
    };
    const Velocities both{tensor(c_), tensor(u_), {{1, tensor(p_)}, {2, tensor(r_)}}};
    const Velocities one{tensor(c_), tensor(u_), {{2, tensor(r_)}}};
    EXPECT_TRUE(close(run(all, 0, both), expected(2), {1e-5f, 1e-5f}));
    EXPECT_TRUE(close(run(all, 1, one), expected(2), {1e-5f, 1e-5f}));  // held
    EXPECT_TRUE(close(run(all, 3, one), expected(0), {1e-5f, 1e-5f}));  // over
}

// More terms than one linear combination takes.
TEST_F(CombinationTest, FiveTerms) {
    Combination all(parse_guidance("pag:1,pag:2,pag:3,pag:4,pag:5"));
    Velocities of{.prompted = tensor(c_)};
    for (size_t i = 0; i < 5; ++i) of.perturbed[i] = tensor(i % 2 == 0 ? p_ : r_);
    Values expected;
    for (size_t i = 0; i < c_.size(); ++i)
        expected.push_back(c_[i] + 9 * (c_[i] - p_[i]) + 6 * (c_[i] - r_[i]));
    EXPECT_TRUE(close(run(all, 0, of), expected, {5e-5f, 1e-5f}));
}

TEST_F(CombinationTest, CfgZero) {
    Combination zero(parse_guidance("cfgzero:3"));
    const auto found = run(zero, 1, {.prompted = tensor(c_), .unprompted = tensor(u_)});
    Values expected;
    for (size_t i = 0; i < c_.size(); ++i) {
        const double s = dot(c_, u_, i / kEach) / dot(u_, u_, i / kEach);
        expected.push_back(static_cast<float>(s * u_[i] + 3 * (c_[i] - s * u_[i])));
    }
    EXPECT_TRUE(close(found, expected, {1e-5f, 1e-5f}));
}

TEST_F(CombinationTest, ApgWithMomentumAndNorm) {
    Combination apg(parse_guidance("apg:3@eta=0.25,beta=-0.5,norm=2"));
    std::vector<double> average(c_.size(), 0);
    for (int step = 0; step < 2; ++step) {
        const Values c = step == 0 ? c_ : p_;
        const auto found = run(apg, step, {.prompted = tensor(c), .unprompted = tensor(u_)});
        std::vector<double> of_c, delta;
        for (size_t i = 0; i < c.size(); ++i) {
            of_c.push_back(z_[i] - double{kTime} * c[i]);
            average[i] = of_c[i] - (z_[i] - double{kTime} * u_[i]) - 0.5 * average[i];
        }
        Values expected;
        for (size_t sample = 0; sample < kSamples; ++sample) {
            double squares = 0, along = 0, whole = 0;
            for (size_t i = sample * kEach; i < (sample + 1) * kEach; ++i) {
                squares += average[i] * average[i];
                along += average[i] * of_c[i];
                whole += of_c[i] * of_c[i];
            }
            const double shorter = std::min(1.0, 2 / std::sqrt(squares));
            EXPECT_LT(shorter, 1);
            for (size_t i = sample * kEach; i < (sample + 1) * kEach; ++i) {
                const double parallel = along / whole * of_c[i];
                const double estimate =
                    of_c[i] + 2 * shorter * (average[i] - parallel + 0.25 * parallel);
                expected.push_back(static_cast<float>((z_[i] - estimate) / kTime));
            }
        }
        EXPECT_TRUE(close(found, expected, {5e-5f, 5e-5f})) << step;
    }
}

// ---- branches of a forward pass, against passes of their own -----------------------------------

class BranchesTest : public ::testing::Test {
  protected:
    static constexpr int64_t kHeight = 10, kWidth = 12, kChannels = 4;
    static constexpr float kTime = 0.6f;
    static constexpr testing::Tolerance kDeep{2e-4f, 1e-4f};

    BranchesTest()
        : stream_(device()),
          model_(stream_, Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/dit.safetensors"),
                 DType::f32),
          base_(hooks_by(model_.patterns(grid_))) {}

    Tensor random(const Shape& shape, uint32_t seed) {
        size_t count = 1;
        for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
        return upload(stream_, testing::random_values(count, seed), shape, DType::f32);
    }
    /// Text of `rows` samples: all the same, the second without the prompt.
    Dit::Context context(int64_t rows, bool unprompted) {
        const auto words = testing::random_values(8 * 48, 1),
                   none = testing::random_values(8 * 48, 2);
        std::vector<float> states;
        for (int64_t i = 0; i < rows; ++i) {
            const auto& own = unprompted && i == 1 ? none : words;
            states.insert(states.end(), own.begin(), own.end());
        }
        return model_.context(stream_, upload(stream_, states, {rows, 8, 48}, DType::f32));
    }
    std::shared_ptr<const Perturbation> perturbation(const char* term) {
        return std::make_shared<Perturbation>(stream_, parse_guidance(term).terms[0],
                                              model_.config());
    }
    Tensor z() { return random({1, kHeight, kWidth, kChannels}, 3); }
    /// The prompt's sample alone, by these hooks.
    std::vector<float> alone(const DitHooks& hooks) {
        return to_host(stream_, model_.forward(stream_, z(), kTime, context(1, false), hooks));
    }
    /// All rows of a pass with branches.
    std::vector<float> together(const std::vector<const char*>& terms, bool unprompted,
                                bool shared) {
        BranchLayout layout{.count = 1, .unprompted = unprompted};
        for (const char* term : terms) layout.perturbed.push_back(perturbation(term));
        const int64_t rows = layout.base_rows();
        const Tensor input =
            empty(stream_.device(), {rows, kHeight, kWidth, kChannels}, DType::f32);
        const Tensor one = z();
        for (int64_t i = 0; i < rows; ++i) stream_.copy(read(one), write(input.slice(i, 1)));
        return to_host(stream_,
                       model_.forward(stream_, input, kTime, context(layout.rows(), unprompted),
                                      with_branches(base_, layout, grid_, shared)));
    }
    static std::span<const float> row(const std::vector<float>& all, size_t i) {
        constexpr size_t kEach = kHeight * kWidth * kChannels;
        return std::span(all).subspan(i * kEach, kEach);
    }

    const DitGrid grid_{1, kHeight / 2, kWidth / 2};
    vk::Stream stream_;
    Dit model_;
    DitHooks base_;
};

/// One layer's self-attention replaced.
DitHooks instead(const DitHooks& base, int64_t layer, const DitHooks::Attention& own) {
    DitHooks hooks = base;
    hooks.attention = [base, layer, own](vk::Stream& stream, int64_t at, const Tensor& q,
                                         const Tensor& k, const Tensor& v) {
        return (at == layer ? own : base.attention)(stream, at, q, k, v);
    };
    return hooks;
}

TEST_F(BranchesTest, EachBranchIsAsAPassOfItsOwn) {
    const auto prompted = alone(base_);
    const Tensor half = upload(stream_, std::vector<float>{0.5f, 0.5f}, {2}, DType::f32);
    const Tensor second = upload(stream_, std::vector<float>{0, 1}, {2}, DType::f32);
    const DitHooks itself = instead(
        base_, 1,
        attention_by({dense(), identity({.tokens = static_cast<uint32_t>(grid_[1] * grid_[2])})}));
    const DitHooks soft = instead(
        base_, 0, [&](vk::Stream& s, int64_t l, const Tensor& q, const Tensor& k, const Tensor& v) {
            return base_.perturbed(s, l, q, k, v, half);
        });
    const DitHooks blurred = instead(
        base_, 1, [&](vk::Stream& s, int64_t l, const Tensor& q, const Tensor& k, const Tensor& v) {
            return base_.attention(
                s, l, blur_tokens(s, q, {.grid = grid_, .sigma = 2, .heads = second}), k, v);
        });
    DitHooks skips = base_;
    skips.part = [](vk::Stream&, const DitPart& part) {
        return part.kind != DitPart::Kind::blocks && part.layer == 0 ? part.x : part.compute();
    };
    struct Case {
        const char* term;
        const DitHooks& hooks;
    };
    for (const auto& [term, hooks] :
         {Case{"pag:1@blocks=1", itself}, Case{"softpag:1@blocks=0,u=0.5", soft},
          Case{"seg:1@blocks=1,heads=1,sigma=2", blurred}, Case{"skip:1@blocks=0", skips}})
        for (const bool shared : {true, false}) {
            const auto all = together({term}, true, shared);
            EXPECT_TRUE(close(row(all, 0), prompted, kDeep)) << term;
            EXPECT_FALSE(close(row(all, 1), prompted, {1e-2f, 0})) << term;
            EXPECT_TRUE(close(row(all, 2), alone(hooks), kDeep)) << term << shared;
            EXPECT_FALSE(close(row(all, 2), prompted, {1e-3f, 0})) << term;
        }
}

TEST_F(BranchesTest, SharedOrNotTheSameBits) {
    const std::vector<const char*> terms{"softpag:1@blocks=0,u=0.5", "skip:1@blocks=1",
                                         "pag:1@blocks=1", "seg:1@blocks=1"};
    const auto shared = together(terms, true, true);
    EXPECT_EQ(shared, together(terms, true, false));
    EXPECT_TRUE(close(row(shared, 4), row(together({"pag:1@blocks=1"}, false, true), 1), kDeep));
    EXPECT_TRUE(close(row(shared, 3), row(together({"skip:1@blocks=1"}, false, true), 1), kDeep));
}

TEST_F(BranchesTest, WorkThatIsSharedDoesNotCount) {
    const auto passes = [&](const char* text, int steps = 10) {
        const auto g = parse_guidance(text);
        std::vector<Perturbation> all;
        for (const auto& term : g.terms)
            if (!term.of_text()) all.emplace_back(stream_, term, model_.config());
        return mean_passes(g, all, model_.config().layers, steps);
    };
    EXPECT_DOUBLE_EQ(passes("cfg:1"), 1);
    EXPECT_DOUBLE_EQ(passes("cfg:3"), 2);
    EXPECT_DOUBLE_EQ(passes("cfg:3,pag:2@blocks=1"), 2.5);
    EXPECT_DOUBLE_EQ(passes("pag:2@blocks=0"), 2);
    EXPECT_DOUBLE_EQ(passes("skip:2@blocks=0"), 1.5);
    EXPECT_DOUBLE_EQ(passes("skip:2@blocks=1"), 1);
    EXPECT_DOUBLE_EQ(passes("pag:2@blocks=1,steps=0-0.4,every=2"), 1.1);
    EXPECT_DOUBLE_EQ(passes("cfgzero:3@zero=5"), 1);
}

TEST_F(BranchesTest, WhatTheModelLacksIsRefused) {
    for (const char* term : {"pag:1@blocks=2", "pag:1@heads=2", "skip:1@blocks=9"})
        EXPECT_THROW(perturbation(term), Error) << term;
    EXPECT_THROW(perturbation("cfg:2"), Error);
    DitHooks none = base_;
    none.perturbed = {};
    const Tensor x = random({1, 30, 2, 32}, 1);
    EXPECT_THROW(perturbation("softpag:1@blocks=1")->attention(stream_, none, grid_, 1, x, x, x),
                 Error);
}

}  // namespace
}  // namespace fovea
