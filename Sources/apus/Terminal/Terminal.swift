import Glibc

/// A failure as a message for the operator; ArgumentParser prints `Error:` before them and exits with 1.
struct CommandFailure: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) {
        self.description = description
    }
}

func writeToStandardError(_ text: String) {
    writeAll(Array(text.utf8), to: STDERR_FILENO)
}

/// Writes every byte, waiting where a pipe is full. False when the reader has closed its end.
@discardableResult
func writeAll(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
    bytes.withUnsafeBytes { buffer in
        var done = 0
        while done < buffer.count {
            let written = write(descriptor, buffer.baseAddress.map { $0 + done }, buffer.count - done)
            if written > 0 {
                done += written
            } else if written < 0, errno != EINTR {
                return false
            }
        }
        return true
    }
}
