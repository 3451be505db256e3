// Matrices that a subgroup holds together, of M × N × K = MAT_M × MAT_N × MAT_K: left and right
// operands in fp16, sums in fp32. With EMULATED they are plain registers of 16 × 16: the same
// kernels then run, slowly, on a device without matrix units, so that tests reach them everywhere.
//
//   MatrixA a; MatrixB b; MatrixC c;
//   LOAD_A(a, array, at, stride)       rows of fp16 in a shared array; at and stride in its elements
//   LOAD_B(b, array, at, stride)       likewise
//   LOAD_B_TRANSPOSED(b, array, …)     the array holds the columns of b
//   LOAD_C, STORE_C(c, array, at, stride)  rows of fp32 in a shared array of floats
//   STORE_C_VECTORS(c, array, …)           rows of fp32 in a shared array of uvec4
//   c = multiply_add(a, b, c);
//   for (uint i = 0; i < SIZE(c); ++i) ELEMENT(c, i) …    in step with other MatrixC: one layout

//   UNROLLED for …                         over arrays of matrices
//
// With INT8_SCORES also operands of int8, MAT_M × MAT_N × SCORE_K, and their exact sums:
//   MatrixA8 a; MatrixB8 b; MatrixC32 c;
//   LOAD_A8, LOAD_B8_TRANSPOSED, CLEAR32   as above
//   TO_FLOAT(c, sums)                      sums as a MatrixC

#ifndef EMULATED

#define UNROLLED [[unroll]]
#define MatrixA coopmat<float16_t, gl_ScopeSubgroup, MAT_M, MAT_K, gl_MatrixUseA>
#define MatrixB coopmat<float16_t, gl_ScopeSubgroup, MAT_K, MAT_N, gl_MatrixUseB>
#define MatrixC coopmat<float, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>
#define SIZE(c) c.length()
#define ELEMENT(c, i) c[i]
#define CLEAR(c) c = MatrixC(0)
#define MULTIPLY(c, d) c = c * d
#define LOAD_A(m, array, at, stride) \
    coopMatLoad(m, array, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define LOAD_B LOAD_A
#define LOAD_B_TRANSPOSED(m, array, at, stride) \
    coopMatLoad(m, array, at, stride, gl_CooperativeMatrixLayoutColumnMajor)
#define LOAD_C LOAD_A
#define STORE_C(m, array, at, stride) \
    coopMatStore(m, array, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define STORE_C_VECTORS STORE_C
#define multiply_add coopMatMulAdd

#ifdef INT8_SCORES
#define MatrixA8 coopmat<int8_t, gl_ScopeSubgroup, MAT_M, SCORE_K, gl_MatrixUseA>
#define MatrixB8 coopmat<int8_t, gl_ScopeSubgroup, SCORE_K, MAT_N, gl_MatrixUseB>
#define MatrixC32 coopmat<int, gl_ScopeSubgroup, MAT_M, MAT_N, gl_MatrixUseAccumulator>
#define LOAD_A8 LOAD_A
#define LOAD_B8_TRANSPOSED LOAD_B_TRANSPOSED
#define CLEAR32(c) c = MatrixC32(0)
#define TO_FLOAT(c, sums) c = MatrixC(sums)
#endif

#else

#define UNROLLED [[dont_unroll]]  // else llvmpipe compiles for minutes

// Element e of lane l is number e · lanes + l, row-major; 4, 8 or 16 lanes, so that the row of an
// element is the same in all of them.
const uint EMULATED_SIZE = 256 / LANES;
struct Matrix {
    float e[64];
};
#define MatrixA Matrix
#define MatrixB Matrix
#define MatrixC Matrix
#define SIZE(c) EMULATED_SIZE
#define ELEMENT(c, i) c.e[i]
#define FOR_ELEMENTS [[dont_unroll]] for (uint i = 0; i < EMULATED_SIZE; ++i)
#define NUMBER (i * LANES + gl_SubgroupInvocationID)
#define CLEAR(c) FOR_ELEMENTS c.e[i] = 0
#define MULTIPLY(c, d) FOR_ELEMENTS c.e[i] *= d.e[i]

float half_of(uint word, uint number) {
    const vec2 pair = unpackHalf2x16(word);
    return number % 2 == 0 ? pair.x : pair.y;
}

float half_at(uvec4 vector, uint number) {
    return half_of(vector[number % 8 / 2], number);
}

float half_at(float word, uint number) {
    return half_of(floatBitsToUint(word), number);
}

// Elements of fp16 an element of the shared array holds.
uint halves(uvec4 vector) { return 8; }
uint halves(float word) { return 2; }

#define LOAD_HALVES(m, array, at, stride, row, column)                                \
    FOR_ELEMENTS {                                                                    \
        const uint number = ((at) + (row) * (stride)) * halves(array[0]) + (column);  \
        m.e[i] = half_at(array[number / halves(array[0])], number);                   \
    }
#define LOAD_A(m, array, at, stride) \
    LOAD_HALVES(m, array, at, stride, NUMBER / 16, NUMBER % 16)
#define LOAD_B LOAD_A
#define LOAD_B_TRANSPOSED(m, array, at, stride) \
    LOAD_HALVES(m, array, at, stride, NUMBER % 16, NUMBER / 16)
#define LOAD_C(m, array, at, stride) \
    FOR_ELEMENTS m.e[i] = array[(at) + NUMBER / 16 * (stride) + NUMBER % 16]
#define STORE_C(m, array, at, stride) \
    FOR_ELEMENTS array[(at) + NUMBER / 16 * (stride) + NUMBER % 16] = m.e[i]
#define STORE_C_VECTORS(m, array, at, stride)                            \
    FOR_ELEMENTS array[(at) + NUMBER / 16 * (stride) + NUMBER % 16 / 4][NUMBER % 4] = \
        floatBitsToUint(m.e[i])

// Sums of int8 products stay below 2^24: exact in fp32.
#define MatrixA8 Matrix
#define MatrixB8 Matrix
#define MatrixC32 Matrix
#define CLEAR32 CLEAR
#define TO_FLOAT(c, sums) c = sums
float int8_at(uvec4 vector, uint number) {
    return float(bitfieldExtract(int(vector[number / 4]), int(number % 4) * 8, 8));
}
#define LOAD_INT8(m, array, at, stride, row, column)                        \
    FOR_ELEMENTS {                                                          \
        const uint number = ((at) + (row) * (stride)) * 16 + (column);      \
        m.e[i] = int8_at(array[number / 16], number % 16);                  \
    }
#define LOAD_A8(m, array, at, stride) LOAD_INT8(m, array, at, stride, NUMBER / 16, NUMBER % 16)
#define LOAD_B8_TRANSPOSED(m, array, at, stride) \
    LOAD_INT8(m, array, at, stride, NUMBER % 16, NUMBER / 16)

Matrix multiply_add(Matrix a, Matrix b, Matrix c) {
    FOR_ELEMENTS {
        const uint row = i * LANES / 16;
        [[dont_unroll]] for (uint k = 0; k < 16; ++k) {
            const uint at = row * 16 + k;
            c.e[i] = fma(subgroupShuffle(a.e[at / LANES], at % LANES),
                         b.e[(k * 16 + i * LANES % 16) / LANES], c.e[i]);
        }
    }
    return c;
}

#endif
