#include "apus_filter.h"
