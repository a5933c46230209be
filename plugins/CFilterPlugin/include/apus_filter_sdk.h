/* apus_filter_sdk.h: small helpers for authors of filter plugins, all of them static inline. They are no part of the
 * ABI: a plugin may do without, and each plugin carries the version it was built with. */
#ifndef APUS_FILTER_SDK_H
#define APUS_FILTER_SDK_H

#include "apus_filter.h"

#include <stdlib.h>
#include <string.h>

/* Writes a text of `length` bytes and a final NUL into room the host gave. It is cut where it does not fit, but not
 * inside a character of UTF-8. room may be NULL, for which nothing happens. */
static inline void apus_filter_say(char *room, size_t capacity, const char *text, size_t length) {
    if (!room || capacity == 0) {
        return;
    }
    if (length >= capacity) {
        length = capacity - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xC0u) == 0x80u) {
            length--;
        }
    }
    memcpy(room, text, length);
    room[length] = 0;
}

/* Refuses an expression: `return apus_filter_refuse(compiled, position, reason, length);` in compile. position: the
 * byte of the expression where it goes wrong. reason is copied. */
static inline int32_t apus_filter_refuse(apus_filter_compiled *compiled, size_t position, const char *reason,
                                         size_t length) {
    compiled->error_position = (uint32_t)position;
    apus_filter_say(compiled->error_text, compiled->error_capacity, reason, length);
    return APUS_FILTER_REFUSED;
}

/* Makes a plugin's table, for languages without constant C structs; C has `static const apus_filter_plugin`. The texts
 * are copied. It stays for the life of the process and is never freed; NULL when there is no memory. */
static inline const apus_filter_plugin *
apus_filter_make_plugin(const char *name, const char *type, const char *release_text, uint64_t capabilities,
                        int32_t (*compile)(const char *, size_t, apus_filter_compiled *),
                        int32_t (*match_batch)(void *, const apus_filter_unit *, uint32_t, uint8_t *),
                        void (*release)(void *), int32_t (*self_test)(char *, size_t)) {
    apus_filter_plugin *plugin = (apus_filter_plugin *)calloc(1, sizeof(apus_filter_plugin));
    if (!plugin) {
        return NULL;
    }
    const char *const texts[3] = {name, type, release_text};
    char *copies[3] = {NULL, NULL, NULL};
    for (int i = 0; i < 3; i++) {
        const size_t size = texts[i] ? strlen(texts[i]) + 1 : 0;
        if (size && (copies[i] = (char *)malloc(size))) {
            memcpy(copies[i], texts[i], size);
        }
    }
    plugin->struct_size = sizeof(apus_filter_plugin);
    plugin->abi_version = APUS_FILTER_ABI_VERSION;
    plugin->name = copies[0];
    plugin->type = copies[1];
    plugin->release_text = copies[2];
    plugin->capabilities = capabilities;
    plugin->compile = compile;
    plugin->match_batch = match_batch;
    plugin->release = release;
    plugin->self_test = self_test;
    return plugin;
}

/* Marks message `index` of the batch as matching. */
static inline void apus_filter_set(uint8_t *bitmap, uint32_t index) {
    bitmap[index >> 3] = (uint8_t)(bitmap[index >> 3] | (1u << (index & 7u)));
}

/* Bit i of the answer: byte at[i] is `wanted`. Reads 16 bytes. */
static inline uint64_t apus_filter_marks_of_16(const uint8_t *at, uint8_t wanted) {
#if defined(__GNUC__) && defined(__SSE2__)
    typedef char apus_filter_bytes __attribute__((vector_size(16)));
    apus_filter_bytes bytes;
    memcpy(&bytes, at, sizeof bytes);
    return (uint32_t)__builtin_ia32_pmovmskb128((apus_filter_bytes)(bytes == (char)wanted));
#else
    uint64_t marks = 0;
    for (unsigned i = 0; i < 16; i++) {
        marks |= (uint64_t)(at[i] == wanted) << i;
    }
    return marks;
#endif
}

/* Where a byte lies among 64: bit i of the answer stands for start[from + i] and is set when that is `wanted`. from <
 * size. Reads nothing outside start[0 ..< size]; bits for what would lie after it are 0. */
static inline uint64_t apus_filter_marks(const uint8_t *start, size_t size, size_t from, uint8_t wanted) {
    uint64_t marks = 0;
    if (size >= 64) {
        /* The last 64 bytes, without those that were looked at already, where fewer are left. */
        const size_t at = size - from >= 64 ? from : size - 64;
        for (unsigned done = 0; done < 64; done += 16) {
            marks |= apus_filter_marks_of_16(start + at + done, wanted) << done;
        }
        return marks >> (from - at);
    }
    for (size_t done = 0; from + done < size; done += 16) {
        const size_t left = size - from - done;
        uint64_t some;
        if (left >= 16) {
            some = apus_filter_marks_of_16(start + from + done, wanted);
        } else if (size >= 16) {
            /* The last 16 bytes, without those that were looked at already. */
            some = apus_filter_marks_of_16(start + size - 16, wanted) >> (16 - left);
        } else {
            uint8_t copy[16] = {0};
            memcpy(copy, start, size);
            some = apus_filter_marks_of_16(copy, wanted) & ((1u << left) - 1);
        }
        marks |= some << done;
    }
    return marks;
}

/* Finds the value of the property `name` (name_length bytes) of a message. Returns where the value starts, inside
 * unit->properties and valid as long as it, and puts its length into *length; NULL when there is no such property. The
 * first of several properties with one name wins. */
static inline const uint8_t *apus_filter_property(const apus_filter_unit *unit, const char *name, size_t name_length,
                                                  size_t *length) {
    const uint8_t *const start = unit->properties;
    const size_t end = start ? unit->properties_size : 0;
    size_t at = 0;
    for (size_t from = 0; from < end; from += 64) {
        uint64_t marks = apus_filter_marks(start, end, from, 2);
        /* The last property may do without its 0x02. */
        const int is_last = from + 64 >= end && start[end - 1] != 2;
        while (marks || (is_last && at < end)) {
            size_t stop = end;
            if (marks) {
                stop = from + (size_t)__builtin_ctzll(marks);
                marks &= marks - 1;
            }
            const size_t size = stop - at;
            if (size > name_length && start[at + name_length] == 1 && memcmp(start + at, name, name_length) == 0) {
                *length = size - name_length - 1;
                return start + at + name_length + 1;
            }
            at = stop + 1;
        }
    }
    *length = 0;
    return NULL;
}

/* The tags code RocketMQ keeps in the consume queue for a tag: Java's String.hashCode over the tag's UTF-16 units,
 * widened from 32 to 64 bits with its sign. Different tags may have one code ("Aa" and "BB"). Bytes that are no UTF-8
 * count as U+FFFD, one for each. */
static inline int64_t apus_filter_tags_code(const uint8_t *tag, size_t length) {
    uint32_t hash = 0;
    size_t at = 0;
    while (at < length) {
        uint32_t first = tag[at];
        uint32_t scalar = first;
        size_t extra = first < 0x80 ? 0 : first >= 0xC2 && first < 0xE0 ? 1 : first >= 0xE0 && first < 0xF0 ? 2
                                                                          : first >= 0xF0 && first < 0xF5   ? 3
                                                                                                            : 9;
        if (extra == 9 || at + extra >= length + (extra == 0)) {
            scalar = 0xFFFD;
            extra = 0;
        } else if (extra > 0) {
            scalar = first & (0x3Fu >> extra);
            for (size_t i = 1; i <= extra; i++) {
                if ((tag[at + i] & 0xC0u) != 0x80u) {
                    scalar = 0xFFFFFFFFu;
                    break;
                }
                scalar = scalar << 6 | (tag[at + i] & 0x3Fu);
            }
            if (scalar > 0x10FFFF || (scalar >= 0xD800 && scalar < 0xE000) || (extra == 2 && scalar < 0x800) ||
                (extra == 3 && scalar < 0x10000)) {
                scalar = 0xFFFD;
                extra = 0;
            }
        }
        if (scalar < 0x10000) {
            hash = hash * 31u + scalar;
        } else {
            hash = hash * 31u + (0xD800u + ((scalar - 0x10000u) >> 10));
            hash = hash * 31u + (0xDC00u + ((scalar - 0x10000u) & 0x3FFu));
        }
        at += 1 + extra;
    }
    return (int64_t)(int32_t)hash;
}

#endif
