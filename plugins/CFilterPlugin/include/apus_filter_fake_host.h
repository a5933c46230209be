/* apus_filter_fake_host.h: loads a plugin and asks it, without a broker. For authors' own tests; all static inline,
 * link with -ldl where the C library still needs it.
 *
 *     apus_fake_host fake;
 *     if (apus_fake_load(&fake, "./libPriceRange.so")) return fail(fake.error);
 *     if (apus_fake_compile(&fake, "price 10 20")) return fail(fake.error);
 *     assert(apus_fake_matches(&fake, "price\1" "15\2" "TAGS\1" "a", "", 0, 0) == 1);
 *     apus_fake_release(&fake);
 *
 * Everything a plugin is shown lies in memory of exactly its size. Build plugin and test with -fsanitize=address, and a
 * read or write beyond it is reported. */
#ifndef APUS_FILTER_FAKE_HOST_H
#define APUS_FILTER_FAKE_HOST_H

#include "apus_filter.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct apus_fake_host {
    apus_filter_host host;
    const apus_filter_plugin *plugin;
    apus_filter_compiled compiled;
    int has_program;
    uint32_t error_position; /* after a refused compile */
    char error[512];         /* after any failure */
} apus_fake_host;

static inline void apus_fake_log(void *context, int32_t level, const char *text, size_t length) {
    (void)context;
    fprintf(stderr, "plugin log, level %d: %.*s\n", (int)level, (int)length, text);
}

/* Loads and checks a plugin as apus-filter does. 0, or -1 with the reason in fake->error. */
static inline int apus_fake_load(apus_fake_host *fake, const char *path) {
    memset(fake, 0, sizeof *fake);
    fake->host = (apus_filter_host){sizeof(apus_filter_host), APUS_FILTER_ABI_VERSION, NULL, apus_fake_log};
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(fake->error, sizeof fake->error, "not a library: %s", dlerror());
        return -1;
    }
    void *symbol = dlsym(handle, APUS_FILTER_ENTRY_SYMBOL);
    if (!symbol) {
        snprintf(fake->error, sizeof fake->error, "no symbol %s", APUS_FILTER_ENTRY_SYMBOL);
        return -1;
    }
    apus_filter_plugin_entry_function entry;
    memcpy(&entry, &symbol, sizeof entry);
    const apus_filter_plugin *plugin = entry(&fake->host);
    if (!plugin) {
        snprintf(fake->error, sizeof fake->error, "the entry returned no table");
    } else if (plugin->abi_version != APUS_FILTER_ABI_VERSION) {
        snprintf(fake->error, sizeof fake->error, "abi_version %u, not %u", plugin->abi_version, APUS_FILTER_ABI_VERSION);
    } else if (plugin->struct_size < sizeof(apus_filter_plugin)) {
        snprintf(fake->error, sizeof fake->error, "struct_size %u is too small", plugin->struct_size);
    } else if (!plugin->name || !*plugin->name || !plugin->type || !*plugin->type || !plugin->compile ||
               !plugin->match_batch || !plugin->release) {
        snprintf(fake->error, sizeof fake->error, "the table is incomplete");
    } else if (plugin->self_test && plugin->self_test(fake->error, sizeof fake->error) != APUS_FILTER_OK) {
        return -1;
    } else {
        fake->plugin = plugin;
        return 0;
    }
    return -1;
}

/* Ends the compiled program, if there is one. */
static inline void apus_fake_release(apus_fake_host *fake) {
    if (fake->has_program) {
        fake->plugin->release(fake->compiled.program);
    }
    fake->has_program = 0;
}

/* Compiles an expression, ending the one before. APUS_FILTER_OK, or what the plugin answered, with its reason in
 * fake->error. */
static inline int apus_fake_compile(apus_fake_host *fake, const char *expression) {
    apus_fake_release(fake);
    size_t length = strlen(expression);
    char *exact = (char *)malloc(length ? length : 1); /* without the NUL, as in the host */
    if (!exact) {
        return APUS_FILTER_FAILED;
    }
    memcpy(exact, expression, length);
    memset(&fake->compiled, 0, sizeof fake->compiled);
    fake->error[0] = 0;
    fake->compiled.struct_size = sizeof fake->compiled;
    fake->compiled.error_text = fake->error;
    fake->compiled.error_capacity = sizeof fake->error;
    fake->compiled.needs = fake->plugin->capabilities;
    int status = fake->plugin->compile(exact, length, &fake->compiled);
    free(exact);
    fake->has_program = status == APUS_FILTER_OK;
    fake->error_position = fake->compiled.error_position;
    return status;
}

/* Whether the compiled expression takes a message: 1 or 0, -1 when the plugin failed. properties as in the log: name \1
 * value \2 name \1 value. */
static inline int apus_fake_matches(apus_fake_host *fake, const char *properties, const void *body, size_t body_size,
                                    int64_t tags_code) {
    if (!fake->has_program) {
        return -1;
    }
    if (fake->compiled.tags_codes_kind == APUS_FILTER_MATCHES_EVERYTHING) {
        return 1;
    }
    if (fake->compiled.tags_codes_kind != APUS_FILTER_TAGS_CODES_UNUSED) {
        int known = 0;
        for (uint32_t i = 0; i < fake->compiled.tags_code_count; i++) {
            known |= fake->compiled.tags_codes[i] == tags_code;
        }
        if (!known || fake->compiled.tags_codes_kind == APUS_FILTER_TAGS_CODES_EXACT) {
            return known;
        }
    }
    size_t size = strlen(properties);
    uint8_t *exact_properties = (uint8_t *)malloc(size ? size : 1), *exact_body = (uint8_t *)malloc(body_size ? body_size : 1);
    apus_filter_unit *unit = (apus_filter_unit *)calloc(1, sizeof *unit);
    uint8_t *bitmap = (uint8_t *)calloc(1, 1);
    int answer = -1;
    if (exact_properties && exact_body && unit && bitmap) {
        memcpy(exact_properties, properties, size);
        if (body_size) {
            memcpy(exact_body, body, body_size);
        }
        unit->tags_code = tags_code;
        if (fake->compiled.needs & APUS_FILTER_NEEDS_PROPERTIES) {
            unit->properties = exact_properties;
            unit->properties_size = (uint32_t)size;
        }
        if (fake->compiled.needs & APUS_FILTER_NEEDS_BODY) {
            unit->body = exact_body;
            unit->body_size = (uint32_t)body_size;
        }
        if (fake->plugin->match_batch(fake->compiled.program, unit, 1, bitmap) == APUS_FILTER_OK) {
            answer = *bitmap & 1;
        }
    }
    free(exact_properties);
    free(exact_body);
    free(unit);
    free(bitmap);
    return answer;
}

#endif
