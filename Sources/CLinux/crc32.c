// CRC-32 by carry-less multiplication, after "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ"
// (Gopal et al., Intel, 2009), with an eight-table fallback. Checked against zlib in Tests/LinuxSystemTests.
#include "CLinux.h"
#include <string.h>

static uint32_t table[8][256];

__attribute__((constructor)) static void fill_tables(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? (c >> 1) ^ 0xedb88320u : c >> 1;
        table[0][n] = c;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int k = 1; k < 8; k++) table[k][n] = (table[k - 1][n] >> 8) ^ table[0][table[k - 1][n] & 0xff];
}

// Works on the inverted register, as the loops below do.
static uint32_t by_table(uint32_t crc, const unsigned char *p, size_t length) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    for (; length >= 8; p += 8, length -= 8) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + 4, 4);
        low ^= crc;
        crc = table[7][low & 0xff] ^ table[6][(low >> 8) & 0xff] ^ table[5][(low >> 16) & 0xff] ^ table[4][low >> 24] ^
              table[3][high & 0xff] ^ table[2][(high >> 8) & 0xff] ^ table[1][(high >> 16) & 0xff] ^
              table[0][high >> 24];
    }
#endif
    while (length--) crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    return crc;
}

uint32_t apus_crc32_portable(uint32_t crc, const void *bytes, size_t length) {
    return ~by_table(~crc, bytes, length);
}

#if defined(__x86_64__)
#include <immintrin.h>

// x mod P for powers x^n of the reflected polynomial: fold by 4×128 bits, by 128 bits, 96→64 bits, and Barrett.
#define FOLD_512 0x01c6e41596, 0x0154442bd4
#define FOLD_128 0x00ccaa009e, 0x01751997d0
#define FOLD_64 0, 0x0163cd6124
#define BARRETT 0x01f7011641, 0x01db710641

#define PCLMUL __attribute__((target("pclmul,sse4.1")))

PCLMUL static inline __m128i fold(__m128i x, __m128i keys, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(x, keys, 0x00), high = _mm_clmulepi64_si128(x, keys, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

#define LOAD(at) _mm_loadu_si128((const __m128i *)(at))

// `length` is a multiple of 16 and at least 16; register inverted.
PCLMUL static uint32_t by_pclmul(uint32_t crc, const unsigned char *p, size_t length) {
    __m128i x0 = _mm_xor_si128(LOAD(p), _mm_cvtsi32_si128((int)crc));
    const __m128i by128 = _mm_set_epi64x(FOLD_128);
    if (length >= 64) {
        const __m128i by512 = _mm_set_epi64x(FOLD_512);
        __m128i x1 = LOAD(p + 16), x2 = LOAD(p + 32), x3 = LOAD(p + 48);
        for (p += 64, length -= 64; length >= 64; p += 64, length -= 64) {
            x0 = fold(x0, by512, LOAD(p));
            x1 = fold(x1, by512, LOAD(p + 16));
            x2 = fold(x2, by512, LOAD(p + 32));
            x3 = fold(x3, by512, LOAD(p + 48));
        }
        x0 = fold(fold(fold(x0, by128, x1), by128, x2), by128, x3);
    } else {
        p += 16;
        length -= 16;
    }
    for (; length >= 16; p += 16, length -= 16) x0 = fold(x0, by128, LOAD(p));

    // 128 → 64 bits
    const __m128i low32 = _mm_setr_epi32(~0, 0, ~0, 0);
    __m128i t = _mm_clmulepi64_si128(x0, by128, 0x10);
    x0 = _mm_xor_si128(_mm_srli_si128(x0, 8), t);
    t = _mm_srli_si128(x0, 4);
    x0 = _mm_clmulepi64_si128(_mm_and_si128(x0, low32), _mm_set_epi64x(FOLD_64), 0x00);
    x0 = _mm_xor_si128(x0, t);

    // 64 → 32 bits
    const __m128i barrett = _mm_set_epi64x(BARRETT);
    t = _mm_clmulepi64_si128(_mm_and_si128(x0, low32), barrett, 0x10);
    t = _mm_clmulepi64_si128(_mm_and_si128(t, low32), barrett, 0x00);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(x0, t), 1);
}

static bool has_pclmul;
__attribute__((constructor)) static void look_at_processor(void) {
    __builtin_cpu_init();
    has_pclmul = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}
#endif

uint32_t apus_crc32_continue(uint32_t crc, const void *bytes, size_t length) {
    const unsigned char *p = bytes;
    crc = ~crc;
#if defined(__x86_64__)
    if (length >= 16 && has_pclmul) {
        size_t whole = length & ~(size_t)15;
        crc = by_pclmul(crc, p, whole);
        p += whole;
        length -= whole;
    }
#endif
    return ~by_table(crc, p, length);
}

uint32_t apus_crc32(const void *bytes, size_t length) { return apus_crc32_continue(0, bytes, length); }
