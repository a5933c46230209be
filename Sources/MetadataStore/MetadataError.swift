package import LinuxSystem

/// What the world can do to a metadata file. The text names the cause and the remedy.
package enum MetadataError: Error, CustomStringConvertible {
    /// A file operation failed.
    case disk(SystemError)
    /// Neither the file nor its backup is what it should be, and starting with nothing would throw it away.
    case damaged(path: String, reason: String)

    package var description: String {
        switch self {
        case .disk(let error): "\(error)"
        case .damaged(let path, let reason): "\(path) is damaged: \(reason)"
        }
    }
}

/// Runs file work and turns its error into a metadata file's.
func onDisk<T>(_ body: () throws(SystemError) -> T) throws(MetadataError) -> T {
    do {
        return try body()
    } catch {
        throw .disk(error)
    }
}
