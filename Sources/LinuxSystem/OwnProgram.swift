import Glibc

/// The file this process runs, symbolic links followed: Apus's programs and plugins lie beside each other.
package enum OwnProgram {
    /// What execve(2) takes to start the same program again, also when its file was replaced meanwhile.
    package static let itself = "/proc/self/exe"

    /// Its absolute path.
    /// - Throws: /proc cannot be read.
    package static func path() throws(SystemError) -> String {
        var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = try call("readlink", itself) { readlink(itself, &buffer, buffer.count) }
        return String(decoding: buffer[..<count], as: UTF8.self)
    }

    /// The folder it lies in, without `/` at its end.
    /// - Throws: /proc cannot be read.
    package static func folder() throws(SystemError) -> String {
        let path = try path()
        return path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
    }
}
