#define _GNU_SOURCE
#include "CLinux.h"
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

// Code is never written to (there are no text relocations). So its pages can be dropped at any time and come back from
// the page cache.
static int drop(struct dl_phdr_info *object, size_t size, void *context) {
    (void)size;
    (void)context;
    const uintptr_t page = (uintptr_t)getpagesize();
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &object->dlpi_phdr[i];
        if (header->p_type != PT_LOAD || (header->p_flags & (PF_X | PF_W)) != PF_X) continue;
        uintptr_t start = (object->dlpi_addr + header->p_vaddr + page - 1) / page * page;
        uintptr_t end = (object->dlpi_addr + header->p_vaddr + header->p_filesz) / page * page;
        // The vdso is not backed by a file; the kernel refuses, and that is all.
        if (end > start) madvise((void *)start, end - start, MADV_DONTNEED);
    }
    return 0;
}

void apus_drop_code_pages(void) { dl_iterate_phdr(drop, NULL); }
