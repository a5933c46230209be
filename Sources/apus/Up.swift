import ArgumentParser
import Glibc
import LinuxSystem

/// Becomes apusd, which lies beside this program and explains the options itself.
struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Start a platform in the foreground (options: apus up --help).")

    @Argument(parsing: .captureForPassthrough)
    var arguments: [String] = []

    func run() throws {
        let path = try Beside.executable("apusd")
        var pointers = (["apus up"] + arguments).map { strdup($0) }
        pointers.append(nil)
        execv(path, pointers)
        let error = SystemError(errno: errno, call: "exec", subject: path)
        StandardError.write("apus up: \(error)\n")
        throw ExitCode(1)
    }
}

/// Programs in the folder of this one.
enum Beside {
    static func executable(_ name: String) throws -> String {
        var buffer = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count)
        guard count > 0 else { throw SystemError(errno: errno, call: "readlink", subject: "/proc/self/exe") }
        let path = String(decoding: buffer[..<count], as: UTF8.self)
        let folder = path.lastIndex(of: "/").map { path[..<$0] } ?? ""
        return "\(folder)/\(name)"
    }
}
