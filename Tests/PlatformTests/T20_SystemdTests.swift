import Foundation
import Testing

extension PlatformTests {
    /// units/apus.service as an operator has it, in a real systemd that is thrown away afterwards: start, kill -9 and freeze of
    /// workers, the journal's fields, reload, stop (`Tests/Support/systemd/scenario`).
    @Suite("T20 systemd", .serialized)
    struct T20_Systemd {
        @Test("the unit starts, survives killed and frozen workers, reloads and stops", .timeLimit(.minutes(3)))
        func unitInARealSystemd() throws {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "\(Binaries.packageRoot)/Tests/Support/systemd/run")
            process.arguments = [Binaries.folder]
            let output = Pipe()
            process.standardOutput = output
            process.standardError = output
            try process.run()
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            if text.hasPrefix("skipped: ") {
                print("T20 systemd: \(text)")
                return
            }
            #expect(process.terminationStatus == 0 && text.hasSuffix("all checks passed\n"), "\(text)")
        }
    }
}
