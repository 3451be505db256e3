#include "backend/ops/device_list.h"

#include <gtest/gtest.h>

#include "backend/ops/attention.h"
#include "backend/patterns/block_sparse.h"
#include "shaders/attention/list_params.h"
#include "tests/backend/ops_testing.h"

/// In which order workgroups take the heads and query tiles of a pattern. That each is taken once
/// shows in what attention computes.
namespace fovea {
namespace {

using testing::device;

constexpr uint32_t kBlock = 16, kBlocks = 6, kTokens = kBlocks * kBlock;

class DeviceListTest : public ::testing::Test {
  protected:
    DeviceList list(const Pattern& pattern) {
        return device_list(stream_, pattern, {kBlock, kBlock}, kTokens, kTokens);
    }
    std::vector<uint32_t> words(const DeviceList& list) {
        std::vector<uint32_t> words(static_cast<size_t>(list.words.numel()));
        stream_.download(read(list.words), std::as_writable_bytes(std::span(words)));
        return words;
    }

    vk::Stream stream_{device()};
};

// Two heads: the first sees a block from each row but all from row 4, the second sees all but from
// row 1, where it sees two.
Pattern uneven() {
    std::vector<uint8_t> mask(2 * kBlocks * kBlocks);
    for (uint32_t row = 0; row < kBlocks; ++row)
        for (uint32_t column = 0; column < kBlocks; ++column) {
            mask[row * kBlocks + column] = column == row || row == 4;
            mask[(kBlocks + row) * kBlocks + column] = row != 1 || column < 2;
        }
    return block_sparse(BlockSparseOptions{.heads = 2,
                                           .q_blocks = kBlocks,
                                           .k_blocks = kBlocks,
                                           .block_q = kBlock,
                                           .block_k = kBlock,
                                           .mask = mask});
}

TEST_F(DeviceListTest, EvenWorkStaysInOrder) {
    EXPECT_FALSE(list(dense()).turns);
    EXPECT_FALSE(list(neighborhood({.shape = {kTokens}}, {.window = {1}})).turns);
}

TEST_F(DeviceListTest, UnevenWorkBeginsWithWhatTakesLongest) {
    const DeviceList found = list(uneven());
    ASSERT_TRUE(found.turns);
    const auto w = words(found);
    const auto turn = [&](uint32_t head) {
        return w[head * found.list_words + shared::LIST_HEAD_TURN];
    };
    EXPECT_EQ(turn(0), 1u);
    EXPECT_EQ(turn(1), 0u);
    const auto tiles = [&](uint32_t head) {
        const auto first = w.begin() + w[head * found.list_words + shared::LIST_TURNS];
        return std::vector<uint32_t>(first, first + kBlocks);
    };
    EXPECT_EQ(tiles(0), (std::vector<uint32_t>{4, 0, 1, 2, 3, 5}));
    EXPECT_EQ(tiles(1), (std::vector<uint32_t>{0, 2, 3, 4, 5, 1}));
}

// Head by head through patterns that are in order, and both at once.
TEST_F(DeviceListTest, TurnsChangeNoResult) {
    const Shape shape{1, 2, kTokens, 32};
    const auto input = [&](uint32_t seed) {
        return upload(stream_, testing::random_values(testing::numel(shape), seed), shape,
                      DType::f32);
    };
    const Tensor q = input(1), k = input(2), v = input(3);
    const Pattern pattern = uneven();
    const auto both = to_host(stream_, attention(stream_, q, k, v, pattern));
    const size_t head = both.size() / 2;
    for (uint32_t h = 0; h < 2; ++h) {
        std::vector<float> alone;
        for (uint32_t row = 0; row < kBlocks; ++row) {
            const auto rows = [&](const Tensor& t, uint32_t first, uint32_t count) {
                return t.reshape({2 * kTokens, 32})
                    .slice(h * kTokens + first, count)
                    .reshape({1, 1, count, 32});
            };
            std::vector<uint8_t> mask(kBlocks);
            for (uint32_t column = 0; column < kBlocks; ++column)
                mask[column] = h == 0 ? column == row || row == 4 : row != 1 || column < 2;
            const Tensor o = attention(stream_, rows(q, row * kBlock, kBlock), rows(k, 0, kTokens),
                                       rows(v, 0, kTokens),
                                       block_sparse(BlockSparseOptions{.q_blocks = 1,
                                                                       .k_blocks = kBlocks,
                                                                       .block_q = kBlock,
                                                                       .block_k = kBlock,
                                                                       .mask = mask}));
            const auto values = to_host(stream_, o);
            alone.insert(alone.end(), values.begin(), values.end());
        }
        EXPECT_TRUE(testing::close(alone, std::span(both).subspan(h * head, head), {1e-5f, 1e-5f}))
            << "head " << h;
    }
}

}  // namespace
}  // namespace fovea
