import Glibc
import LinuxSystem

/// Reading a small file whole, with the system's own text when that fails.
package enum TextFile {
    private static let bytesMax = 4 << 20

    /// The whole file, which must be UTF-8 and at most 4 MiB.
    /// - Throws: the file cannot be read, is too long or is not UTF-8.
    package static func read(_ path: String) throws(ConfigurationError) -> String {
        var bytes: [UInt8] = []
        do throws(SystemError) {
            let file = try Descriptor(owning: call("open", path) { open(path, O_RDONLY | O_CLOEXEC) })
            var buffer = [UInt8](repeating: 0, count: 64 << 10)
            while true {
                let count = try call("read", path) { Glibc.read(file.raw, &buffer, buffer.count) }
                if count == 0 { break }
                bytes += buffer[..<count]
                if bytes.count > bytesMax { break }
            }
        } catch {
            throw ConfigurationError("\(error)")
        }
        guard bytes.count <= bytesMax, let text = String(validating: bytes, as: UTF8.self) else {
            throw ConfigurationError("\(path) is no text: it must be UTF-8 and at most \(bytesMax >> 20) MiB")
        }
        return text
    }
}
