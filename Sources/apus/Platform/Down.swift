import ArgumentParser
import Glibc
import LinuxSystem

struct Down: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Stop a platform in order: brokers drain and flush, then the others.",
        discussion: "Ends with 0 when it has stopped, 3 when nothing runs, 1 when it does not answer.")

    @OptionGroup var directory: ControlClient.DataDirectory

    func run() throws {
        guard let pid = directory.runningPid else {
            StandardError.write("apus down: \(directory.nothingRuns)\n")
            throw ExitCode(3)
        }
        try Down.stop(directory, pid: pid)
    }

    /// Stops a running platform and waits for its end.
    static func stop(_ directory: ControlClient.DataDirectory, pid: Int32) throws {
        let start = MonotonicClock.milliseconds
        do {
            let client = try ControlClient(directory)
            _ = try client.ask("stop")
            client.waitForEnd()
        } catch let error as SystemError where error.errno == ECONNRESET || error.errno == EPIPE {
            // It ended between two of our steps.
        } catch {
            throw CommandFailure("pid \(pid) runs on \(directory.path) but does not answer: \(error)")
        }
        // Its admin socket closes a moment before the process ends.
        while directory.runningPid == pid { usleep(2_000) }
        let seconds = Double(MonotonicClock.milliseconds - start) / 1000
        print("stopped \(directory.path) (pid \(pid)) in \(fixed(seconds, 2)) s")
    }
}
