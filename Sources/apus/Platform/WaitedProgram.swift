import Glibc
import LinuxSystem

/// Another program, run to its end.
enum WaitedProgram {
    /// Runs it with this process's environment and an empty standard input; what it prints goes where ours goes.
    static func run(_ path: String, _ arguments: [String]) throws(SystemError) -> ChildProcess.Ending {
        try spawn(path, arguments, output: (1, 2)).wait()
    }

    /// The same; what it prints on either descriptor is the second part of the answer.
    static func output(
        of path: String, _ arguments: [String]
    ) throws(SystemError) -> (ending: ChildProcess.Ending, text: String) {
        var ends: [Int32] = [-1, -1]
        try call("pipe", path) { pipe(&ends) }
        let reading = Descriptor(owning: ends[0])
        let child = try spawn(path, arguments, into: Descriptor(owning: ends[1]))
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = try call("read", path) { read(reading.raw, &buffer, buffer.count) }
            if count == 0 { break }
            text += buffer[..<count]
        }
        return (try child.wait(), String(decoding: text, as: UTF8.self))
    }

    /// Our end of the pipe is closed after it, so that reading ends with the child.
    private static func spawn(
        _ path: String, _ arguments: [String], into pipe: consuming Descriptor
    ) throws(SystemError) -> ChildProcess {
        try spawn(path, arguments, output: (pipe.raw, pipe.raw))
    }

    private static func spawn(
        _ path: String, _ arguments: [String], output: (Int32, Int32)
    ) throws(SystemError) -> ChildProcess {
        // What was printed before comes before what the child prints.
        fflush(nil)
        let null = try RunDirectory.openNull()
        return try ChildProcess.spawn(
            path: path, arguments: [path] + arguments, environment: ChildProcess.environment(without: []),
            descriptors: [(null.raw, 0), (output.0, 1), (output.1, 2)], parentDeathSignal: 0, ownProcessGroup: false)
    }
}
