import Foundation
import Testing

/// A scenario of `Tests/Support/systemd/scenarios`, in a real systemd that is thrown away afterwards.
enum Systemd {
    /// Prints its figures; records an issue with all of its output when a check failed. Where there is no root, no
    /// systemd or no cgroup it says that it is skipped, and why.
    /// - Parameter clients: the Python environment of the official client.
    static func run(_ scenario: String, clients: String? = nil) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "\(Binaries.packageRoot)/Tests/Support/systemd/run")
        process.arguments = [Binaries.folder, scenario] + (clients.map { [$0] } ?? [])
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        if text.hasPrefix("skipped: ") {
            print("systemd \(scenario): \(text)")
            return
        }
        let lines = text.split(separator: "\n")
        for line in lines where line.hasPrefix("  (") { print("systemd \(scenario):\(line.dropFirst())") }
        #expect(process.terminationStatus == 0 && lines.contains("all checks passed"), "\(text)")
    }
}
