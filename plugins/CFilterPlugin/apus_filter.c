/* Compiles the public headers on their own and holds the layout: an accidental change of the ABI fails the build. */
#include "apus_filter.h"
#include "apus_filter_sdk.h"

_Static_assert(sizeof(apus_filter_unit) == 64, "apus_filter_unit never grows");
_Static_assert(offsetof(apus_filter_unit, sys_flag) == 48, "apus_filter_unit never changes");
_Static_assert(sizeof(apus_filter_host) == 24, "append only, then raise this number");
_Static_assert(offsetof(apus_filter_host, log) == 16, "append only");
_Static_assert(offsetof(apus_filter_unit, inputs) == 56, "apus_filter_unit never changes");
_Static_assert(sizeof(apus_filter_call) == 32, "apus_filter_call travels as an array and never grows");
_Static_assert(sizeof(apus_filter_compiled) == 72, "append only, then raise this number");
_Static_assert(offsetof(apus_filter_compiled, error_text) == 32, "append only");
_Static_assert(offsetof(apus_filter_compiled, needs) == 48, "append only");
_Static_assert(offsetof(apus_filter_compiled, calls) == 56, "append only");
_Static_assert(sizeof(apus_filter_plugin) == 72, "append only, then raise this number");
_Static_assert(offsetof(apus_filter_plugin, capabilities) == 32, "append only");
_Static_assert(offsetof(apus_filter_plugin, compile) == 40, "append only");
_Static_assert(offsetof(apus_filter_plugin, self_test) == 64, "append only");
