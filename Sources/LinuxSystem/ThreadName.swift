import CLinux

/// Names the calling thread, at most 15 bytes, for `ps -L`, `top -H` and core dumps.
package func setCurrentThreadName(_ name: String) {
    apus_set_thread_name(name)
}
