/* An example plugin in C: subscriptions of the type RANGE, such as "price 10 20", get the messages whose property lies
 * in the range, both ends included. Build it with the one command of plugins/README.md. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apus_filter_sdk.h"

struct range {
    char name[128];
    size_t name_length;
    double low, high;
};

static int32_t refuse(apus_filter_compiled *compiled, size_t position, const char *reason) {
    compiled->error_position = (uint32_t)position;
    snprintf(compiled->error_text, compiled->error_capacity, "%s", reason);
    return APUS_FILTER_REFUSED;
}

static int32_t compile(const char *expression, size_t length, apus_filter_compiled *compiled) {
    char text[256];
    if (length >= sizeof text) {
        return refuse(compiled, sizeof text, "the expression is longer than 255 bytes");
    }
    memcpy(text, expression, length); /* the expression has no NUL at its end */
    text[length] = 0;

    struct range *range = calloc(1, sizeof *range);
    if (!range) {
        return APUS_FILTER_FAILED;
    }
    int after_name = 0, after_low = 0, after_high = 0;
    if (sscanf(text, " %127s%n", range->name, &after_name) != 1) {
        free(range);
        return refuse(compiled, 0, "write: NAME LOW HIGH");
    }
    if (sscanf(text + after_name, "%lf%n", &range->low, &after_low) != 1) {
        free(range);
        return refuse(compiled, (size_t)after_name, "a number, the lower end of the range, is missing here");
    }
    if (sscanf(text + after_name + after_low, "%lf %n", &range->high, &after_high) != 1) {
        free(range);
        return refuse(compiled, (size_t)(after_name + after_low), "a number, the upper end of the range, is missing here");
    }
    if (text[after_name + after_low + after_high]) {
        free(range);
        return refuse(compiled, (size_t)(after_name + after_low + after_high), "nothing may follow the range");
    }
    range->name_length = strlen(range->name);
    compiled->program = range;
    return APUS_FILTER_OK;
}

static int32_t match_batch(void *program, const apus_filter_unit *units, uint32_t count, uint8_t *bitmap) {
    const struct range *range = program;
    for (uint32_t i = 0; i < count; i++) {
        size_t length;
        const uint8_t *value = apus_filter_property(&units[i], range->name, range->name_length, &length);
        char text[64];
        if (!value || length == 0 || length >= sizeof text) {
            continue; /* what cannot be understood does not match */
        }
        memcpy(text, value, length); /* nor has a property value a NUL */
        text[length] = 0;
        char *end;
        double number = strtod(text, &end);
        if (*end == 0 && number >= range->low && number <= range->high) {
            apus_filter_set(bitmap, i);
        }
    }
    return APUS_FILTER_OK;
}

static void release(void *program) { free(program); }

static const apus_filter_plugin plugin = {
    .struct_size = sizeof(apus_filter_plugin),
    .abi_version = APUS_FILTER_ABI_VERSION,
    .name = "price-range",
    .type = "RANGE",
    .release_text = "1.0",
    .capabilities = APUS_FILTER_NEEDS_PROPERTIES,
    .compile = compile,
    .match_batch = match_batch,
    .release = release,
};

const apus_filter_plugin *apus_filter_plugin_entry(const apus_filter_host *host) {
    (void)host;
    return &plugin;
}
