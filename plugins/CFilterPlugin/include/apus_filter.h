/* apus_filter.h: the binary interface between Apus and its filter plugins.
 *
 * A plugin is a shared library that exports ONE symbol, apus_filter_plugin_entry. apus-filter loads it. This process
 * owns nothing but a read-only view of the store. It asks the plugin to compile subscription expressions and hands it
 * batches of messages.
 *
 * Calls in the order in which a plugin sees them:
 *   load      entry(host) is called once and returns the plugin's table. Then self_test, when there is one.
 *   compile   once for every expression of the plugin's type; the answer is a program, or a refusal with a position.
 *   match     match_batch with up to a few hundred messages at a time. The host asks ahead of the consumers and keeps
 *             the answers for the pulls that follow. An answer may depend on nothing but the program and the message.
 *   release   once for every program, never while a match of that program runs.
 *   A loaded plugin is never unloaded: a new version is taken by a fresh apus-filter process.
 *
 * Threads: the host calls a plugin from one thread at a time. A plugin starts no threads.
 *
 * Rules of growth: every struct starts with struct_size, set by the side that filled it in; fields are only ever
 * appended; a reader looks at no field beyond struct_size. apus_filter_unit travels as an array and therefore never
 * grows. A change that breaks these rules raises APUS_FILTER_ABI_VERSION, and the host refuses other versions.
 *
 * Ownership is stated at every pointer. Unless stated otherwise, memory belongs to the side that filled in the pointer
 * and the other side neither keeps, changes nor frees it. No memory ever changes owner.
 */
#ifndef APUS_FILTER_H
#define APUS_FILTER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define APUS_FILTER_ABI_VERSION 1u
#define APUS_FILTER_ENTRY_SYMBOL "apus_filter_plugin_entry"

/* What a plugin, or one of its programs, has to see of a message. With no bit set it sees the tags code alone. */
#define APUS_FILTER_NEEDS_PROPERTIES (1ull << 0)
#define APUS_FILTER_NEEDS_BODY (1ull << 1)

/* Answers of compile, match_batch and self_test. */
#define APUS_FILTER_OK 0
/* compile only: the expression is wrong. Shown to the client that subscribed; asking again gives the same answer. */
#define APUS_FILTER_REFUSED 1
/* The plugin could not do its work now (no memory, for example). Nothing is delivered and the host asks again later. */
#define APUS_FILTER_FAILED 2

/* What compile found out about tags codes: the 64-bit hash that the consume queue holds for each message's tag. */
/* Nothing: every message goes through match_batch. */
#define APUS_FILTER_TAGS_CODES_UNUSED 0u
/* Exactly the messages with one of these codes match. The broker compares integers and never calls match_batch. */
#define APUS_FILTER_TAGS_CODES_EXACT 1u
/* Messages with other codes cannot match; those with one of these go through match_batch. */
#define APUS_FILTER_TAGS_CODES_PREFILTER 2u
/* Every message matches, whatever it holds. */
#define APUS_FILTER_MATCHES_EVERYTHING 3u

/* Levels of host->log. */
#define APUS_FILTER_LOG_INFO 0
#define APUS_FILTER_LOG_WARNING 1
#define APUS_FILTER_LOG_ERROR 2

/* One message of a batch: 64 bytes, never grows.
 * Both pointers lead into the host's read-only mapping of the store: borrowed until match_batch returns, never written
 * to (that is a crash), never kept. They are not NUL-terminated and hold whatever the producer sent. */
typedef struct apus_filter_unit {
    int64_t tags_code;         /* of the consume queue; 0 when the message has no tag */
    /* name 0x01 value 0x02 name 0x01 value ... UTF-8, last 0x02 optional; NULL unless this program, or another that is
     * asked about the same messages, needs it. So with body. */
    const uint8_t *properties;
    const uint8_t *body;       /* as stored, compressed when sys_flag states it; NULL unless needed */
    uint32_t properties_size;  /* bytes; 0 when properties is NULL */
    uint32_t body_size;        /* bytes; 0 when body is NULL */
    int64_t born_timestamp;    /* milliseconds since 1970, the producer's clock; 0 when only the tags code is needed */
    int64_t store_timestamp;   /* milliseconds since 1970, the broker's clock; 0 when only the tags code is needed */
    uint32_t sys_flag;         /* RocketMQ's: bit 0 = compressed body; 0 when only the tags code is needed */
    uint32_t reserved_32;      /* 0 */
    /* Bit k: the answer of the program's call number k for this message; 0 without calls
     * (apus_filter_compiled.calls). */
    uint64_t inputs;
} apus_filter_unit;

/* What the host offers. The host owns it and everything in it; all of it stays valid until the process ends. */
typedef struct apus_filter_host {
    uint32_t struct_size;
    uint32_t abi_version;
    void *context; /* handed back to log as it is; the plugin does nothing else with it */
    /* Writes one line to the journal. text is borrowed until log returns; length in bytes, no NUL needed. */
    void (*log)(void *context, int32_t level, const char *text, size_t length);
} apus_filter_host;

/* A question to another plugin inside an expression, as SQL92's PLUGIN('TYPE', 'expression') has them. The host asks
 * that plugin and passes the answers in apus_filter_unit.inputs. Texts are UTF-8 without NUL at the end. */
typedef struct apus_filter_call {
    const char *type;        /* the other plugin's expressionType */
    const char *expression;  /* what it compiles */
    uint32_t type_size;      /* bytes */
    uint32_t expression_size;
    uint32_t type_position;  /* byte offset in the whole expression where the type's text begins */
    uint32_t expression_position; /* and the expression's, for places in refusals */
} apus_filter_call;

/* At most so many calls has a program: one bit of inputs each. */
#define APUS_FILTER_CALLS_MAX 64u

/* The answer of compile. The host owns the struct, sets everything to the values below, and reads it after
 * compile has returned. */
typedef struct apus_filter_compiled {
    uint32_t struct_size;
    /* Out: one of APUS_FILTER_TAGS_CODES_..., APUS_FILTER_MATCHES_EVERYTHING. Preset to TAGS_CODES_UNUSED. */
    uint32_t tags_codes_kind;
    /* Out: the program. The plugin owns what it points to; the host only hands it to match_batch and release. NULL is a
     * program like any other. Preset to NULL. */
    void *program;
    /* Out: the codes, in any order. The plugin owns them and keeps them unchanged until release. Preset to NULL. */
    const int64_t *tags_codes;
    uint32_t tags_code_count; /* Out. 0 with TAGS_CODES_EXACT: nothing ever matches. Preset to 0. */
    /* Out, with APUS_FILTER_REFUSED: byte offset in the expression where it goes wrong. Preset to 0. */
    uint32_t error_position;
    /* In: room for a reason, owned by the host, error_capacity bytes (at least 256). The plugin may write UTF-8 text
     * with a final NUL into it, with REFUSED and FAILED. Preset to an empty text. */
    char *error_text;
    uint32_t error_capacity;
    uint32_t reserved_32; /* 0 */
    /* Out: which APUS_FILTER_NEEDS_... bits this program has to see. Preset to the plugin's capabilities. */
    uint64_t needs;
    /* From here on only when struct_size covers it; a host of Apus 0.6 has no calls.
     * Out: the calls of the program, answered before each match_batch. The plugin owns them and what they point to, and
     * keeps them unchanged until release. A plugin that is called has no calls of its own. Preset to NULL. */
    const apus_filter_call *calls;
    uint32_t call_count;     /* Out. Preset to 0. */
    uint32_t reserved_32_2;  /* 0 */
} apus_filter_compiled;

/* The plugin's table. The plugin owns it and everything it points to; all of it stays valid and unchanged until the
 * process ends. Texts are UTF-8 with a final NUL. */
typedef struct apus_filter_plugin {
    uint32_t struct_size; /* sizeof(apus_filter_plugin) of the header the plugin was built with */
    uint32_t abi_version; /* APUS_FILTER_ABI_VERSION of that header */
    const char *name;     /* unique among the loaded plugins, such as "tag"; 1 to 64 bytes */
    const char *type;     /* the expressionType of the subscriptions it serves, such as "TAG"; unique; 1 to 64 bytes */
    const char *release_text; /* the plugin's own version, for people; may be NULL */
    uint64_t capabilities;    /* union of the APUS_FILTER_NEEDS_... bits of all its programs */

    /* Turns an expression into a program.
     * expression: length bytes of UTF-8 without NUL at the end, borrowed until compile returns.
     * Returns APUS_FILTER_OK, APUS_FILTER_REFUSED or APUS_FILTER_FAILED.
     * Only after OK is there a program to release. */
    int32_t (*compile)(const char *expression, size_t length, apus_filter_compiled *compiled);

    /* Decides which of count messages match.
     * units: an array of count messages, owned by the host, borrowed until match_batch returns.
     * bitmap: (count + 7) / 8 bytes owned by the host, all zero at the start. The plugin sets bit i % 8 (1 << (i % 8))
     * of byte i / 8 when unit i matches, and writes nowhere else: the page after the bitmap may not be mapped.
     * Returns APUS_FILTER_OK or APUS_FILTER_FAILED; after FAILED the bitmap is not looked at. A message that the plugin
     * cannot make sense of (no such property, not a number) simply does not match.
     * Takes a bounded time: a worker that hangs is killed and the plugin is blamed. Allocates nothing, ideally. */
    int32_t (*match_batch)(void *program, const apus_filter_unit *units, uint32_t count, uint8_t *bitmap);

    /* Ends a program and frees what belongs to it, its tags_codes included. */
    void (*release)(void *program);

    /* Optional, may be NULL: a quick check after loading (a tenth of a second at most) that the plugin works here.
     * reason: capacity bytes owned by the host for UTF-8 text with a final NUL that states what is wrong.
     * Returns APUS_FILTER_OK or APUS_FILTER_FAILED. A plugin that fails is not used. */
    int32_t (*self_test)(char *reason, size_t capacity);
} apus_filter_plugin;

/* The one exported symbol. host stays valid until the process ends. Returns the table, owned by the plugin, or NULL
 * when the plugin cannot work with this host. */
const apus_filter_plugin *apus_filter_plugin_entry(const apus_filter_host *host);
typedef const apus_filter_plugin *(*apus_filter_plugin_entry_function)(const apus_filter_host *host);

#ifdef __cplusplus
}
#endif
#endif
