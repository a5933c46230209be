/// Why a plugin file was not taken. The cases stand in the order in which the host checks.
package enum FilterPluginError: Error, Equatable {
    /// The dynamic loader would not have it: no ELF library, another machine, a missing dependency.
    case notALibrary(path: String, reason: String)
    /// Its headers state more bytes than it has: it was not copied whole.
    case truncated(path: String, bytes: Int64)
    /// It could not be copied into the worker's own memory.
    case unreadable(path: String, reason: String)
    case noEntry(path: String)
    /// The entry returned no table: the plugin reports that it cannot work with this host.
    case noTable(path: String)
    case wrongVersion(path: String, found: UInt32, expected: UInt32)
    case wrongStructSize(path: String, found: UInt32, expected: UInt32)
    case incompleteTable(path: String, what: String)
    case duplicateName(path: String, name: String, takenBy: String)
    case duplicateType(path: String, type: String, takenBy: String)
    case failedSelfTest(path: String, reason: String)
    /// Filter workers before this one died of loading it; not even tried.
    case harmful(path: String, reason: String)
}

extension FilterPluginError: CustomStringConvertible {
    package var description: String {
        switch self {
        case .notALibrary(let path, let reason):
            "\(path) is not a library that can be loaded here: \(reason). "
                + "Build it as a shared library for this machine (plugins/README.md)."
        case .truncated(let path, let bytes):
            """
            \(path) is not whole: \(bytes) bytes are what its own headers promise. Copy it again, or use apus plugin \
            add.
            """
        case .unreadable(let path, let reason):
            "\(path) cannot be read: \(reason)."
        case .noEntry(let path):
            "\(path) is a library without the entry symbol apus_filter_plugin_entry, so no filter plugin. "
                + "Export that function with C linkage."
        case .noTable(let path):
            "\(path): its entry returned no table: the plugin says that it cannot work with this host."
        case .wrongVersion(let path, let found, let expected):
            "\(path) was built for version \(found) of the filter interface; this host speaks version \(expected). "
                + "Build it again with this host's apus_filter.h."
        case .wrongStructSize(let path, let found, let expected):
            "\(path) says that its table has \(found) bytes; version 1 of the interface needs \(expected) to 4096. "
                + "Set struct_size to sizeof(apus_filter_plugin)."
        case .incompleteTable(let path, let what):
            "\(path): its table is incomplete: \(what)."
        case .duplicateName(let path, let name, let takenBy):
            "\(path) calls itself \"\(name)\", and so does \(takenBy), which was loaded first. Remove one of them."
        case .duplicateType(let path, let type, let takenBy):
            "\(path) serves expressions of the type \(type), and so does \(takenBy), which was loaded first. "
                + "Remove one of them."
        case .failedSelfTest(let path, let reason):
            "\(path) failed its own self-test: \(reason)."
        case .harmful(let path, let reason):
            "\(path) is not loaded, \(reason). Repair or remove it."
        }
    }
}
