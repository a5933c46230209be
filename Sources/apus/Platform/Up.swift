import ArgumentParser
import Glibc
import LinuxSystem

/// Becomes apusd, which lies beside this program and explains the options itself.
struct Up: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Start a platform in the foreground (options: apus up --help).")

    // apusd knows its options; some take files.
    @Argument(parsing: .captureForPassthrough, completion: .file())
    var arguments: [String] = []

    func run() throws { try Beside.become("apusd", arguments, as: "apus up") }
}

/// Programs in the folder of this one.
enum Beside {
    static func executable(_ name: String) throws -> String {
        "\(try OwnProgram.folder())/\(name)"
    }

    /// Turns this process into another of our programs.
    ///
    /// - Parameter name: what it is to call itself in its messages.
    static func become(_ program: String, _ arguments: [String], as name: String? = nil) throws -> Never {
        let path = try executable(program)
        // What was printed is not to be lost with this program's buffers.
        fflush(nil)
        var pointers = ([name ?? program] + arguments).map { strdup($0) }
        pointers.append(nil)
        execv(path, pointers)
        throw CommandFailure("\(SystemError(errno: errno, call: "exec", subject: path))")
    }
}
