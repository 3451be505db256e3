// Push constants of the small ops, one definition for C++ and GLSL. Counts are in elements.

#ifndef FOVEA_PARAMS_H
#define FOVEA_PARAMS_H

#ifdef __cplusplus
#include <cstdint>

namespace fovea::shader {
using uint = uint32_t;
#endif

struct NormParams {
    uint rows, n;
    uint rows_per_batch;  // of shift and scale
    float eps;
    uint together;  // rows of x side by side, and elements to the next such
    uint pitch;
};

struct RopeParams {
    uint rows;  // batch · heads · tokens
    uint tokens, head_dim;
    uint rotated;  // dims at the front of head_dim that turn
    float eps;
    uint together;  // heads of a token side by side, and elements of x to the next token's
    uint pitch;
};

struct StridedParams {
    uint runs;  // output elements / RUN
    uint shape[6];
    uint strides[6];
};

// What elementwise.comp computes: specialisation constant 1.
const uint ELEMENTWISE_LINEAR = 0;         // Σ coefficient · term
const uint ELEMENTWISE_ADD = 1;            // a + b, b repeated
const uint ELEMENTWISE_MULTIPLY = 2;       // a · b, b repeated
const uint ELEMENTWISE_ACTIVATE = 3;       // activation(a)
const uint ELEMENTWISE_AFFINE = 4;         // a · b + c, b and c repeated
const uint ELEMENTWISE_SOFT_CLAMP = 5;     // limit · tanh(a / limit), limit in coefficients[0]
const uint ELEMENTWISE_BROADCAST_ADD = 6;  // a (rows, n) + b (batch, b_rows, n)

struct ElementwiseParams {
    uint count;
    uint n;       // length of what is repeated
    uint batch;   // broadcast_add
    uint b_rows;  // broadcast_add: 1 when shared
    float coefficients[4];
};

struct ReduceParams {
    uint count;    // results (mean_tokens) or elements (statistics)
    uint width;    // mean_tokens
    uint tokens;   // mean_tokens
    uint records;  // statistics
};

struct BlurParams {
    uint count, n, inner;
    uint heads, head_dim;
    float falloff;  // 1 / (2 sigma²)
};

struct SoftmaxParams {
    uint rows, n;
};

struct GroupNormParams {
    uint count;  // of this stage: partial moments, moments, or elements / RUN
    uint batch, pixels, channels, groups;
    uint chunks, chunk_pixels;  // pixels of a partial moment
    float eps;
};

struct NoiseParams {
    uint blocks;  // of four elements
    uint count;
    uint seed_low, seed_high;
    uint stream;
};

// Of linear attention: rows of four elements, lines are batch · heads.
struct LinearParams {
    uint count;  // of invocations
    uint lines, heads, tokens;
    uint chunk;        // tokens of a part
    uint d4, e4;       // features and values
    uint pitch;        // from a token of the features to the next
    uint value_pitch;  // likewise of the values
    uint finish;       // what becomes of results: LINEAR_…
    float scale, eps;
    uint flag;  // weighted, or gated
};

const uint LINEAR_PLAIN = 0;       // scale · dot
const uint LINEAR_RECIPROCAL = 1;  // 1 / (scale · dot + eps)
const uint LINEAR_SIGMOID = 2;     // sigmoid(scale · dot)
const uint LINEAR_CLAMPED = 3;     // scale · dot within −1 … 1
const uint LINEAR_MULTIPLIED = 4;  // factor · sum
const uint LINEAR_MAGNITUDE = 5;   // (1 + 1 / (factor + eps)) · sum − factor · mean of values

// Of mix/: grids of tokens in rows of four channels.
struct MixParams {
    uint count;  // of invocations
    uint rows, columns, heads;
    uint c4;         // channels of a head
    uint pitch;      // from a token of x to the next
    uint kernel;     // taps of a side
    uint row_pitch;  // of logits, in elements
    uint activation;
    uint bias, residual;  // 0 or 1
};

// Of grid/: rows of four channels.
struct GridParams {
    uint count;  // of invocations
    uint rows, columns, c4;
    uint x_rows, x_columns;
    uint pitch;  // from a token of x to the next
    int top, left;
};

// Rows of the result are pieces of up to four inputs side by side.
struct ConcatParams {
    uint count;        // of invocations
    uint width;        // of a result's row, in elements / 4
    uint ends[4];      // of the pieces in it
    uint rows[4];      // of each input: row r of the result has row r % rows
    uint together[4];  // rows side by side in an input, and elements / 4 to the next such
    uint pitch[4];
};

struct EmbeddingParams {
    uint count, width, rows;
};

#ifdef __cplusplus
}  // namespace fovea::shader
#endif

#endif
