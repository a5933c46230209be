import Glibc

/// Lines of a file or of standard input, without their newline, as bytes. A last line without newline counts.
struct LineReader: ~Copyable {
    private static let chunk = 256 << 10
    /// A line longer than this is no message (a broker's frame limit), so reading it whole would only cost memory.
    private static let longestLine = 64 << 20

    private let descriptor: Int32
    private let path: String
    private var bytes: [UInt8] = []
    private var position = 0
    private var hasEnded = false
    /// Bytes of the whole input; nil when it is a pipe or a terminal.
    let size: Int?
    /// Bytes handed out, newlines included.
    private(set) var consumed = 0

    /// - Parameter path: nil or `-` for standard input.
    init(path: String?) throws {
        if let path, path != "-" {
            descriptor = open(path, O_RDONLY | O_CLOEXEC)
            self.path = path
            guard descriptor >= 0 else {
                throw CommandFailure("cannot read '\(path)': \(String(cString: strerror(errno)))")
            }
        } else {
            descriptor = STDIN_FILENO
            self.path = "standard input"
        }
        var status = stat()
        size = fstat(descriptor, &status) == 0 && status.st_mode & S_IFMT == S_IFREG ? Int(status.st_size) : nil
    }

    deinit {
        if descriptor != STDIN_FILENO { close(descriptor) }
    }

    /// The next line, or nil at the end or once `interrupt` is raised.
    mutating func next(unless interrupt: Interrupt) throws -> [UInt8]? {
        var searched = position
        while true {
            if let newline = bytes[searched...].firstIndex(of: 0x0A) {
                let line = Array(bytes[position..<newline])
                consumed += line.count + 1
                position = newline + 1
                return line
            }
            if hasEnded {
                guard position < bytes.count else { return nil }
                let line = Array(bytes[position...])
                consumed += line.count
                position = bytes.count
                return line
            }
            bytes.removeFirst(position)
            position = 0
            searched = bytes.count
            guard bytes.count <= Self.longestLine else {
                throw CommandFailure("\(path) has a line longer than \(Self.longestLine >> 20) MiB: it is no text file")
            }
            guard try fill(unless: interrupt) else { return nil }
        }
    }

    /// Reads more. False when interrupted; waits in steps so that Ctrl-C is noticed at a terminal or slow pipe.
    private mutating func fill(unless interrupt: Interrupt) throws -> Bool {
        while !interrupt.isRaised {
            if size == nil {
                var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
                guard poll(&wait, 1, 100) != 0 else { continue }
            }
            let start = bytes.count
            bytes.append(contentsOf: repeatElement(0, count: Self.chunk))
            let got = bytes.withUnsafeMutableBytes { read(descriptor, $0.baseAddress.map { $0 + start }, Self.chunk) }
            let reason = errno
            bytes.removeLast(Self.chunk - max(0, got))
            if got > 0 { return true }
            if got == 0 {
                hasEnded = true
                return true
            }
            guard reason == EINTR || reason == EAGAIN else {
                throw CommandFailure("cannot read \(path): \(String(cString: strerror(reason)))")
            }
        }
        return false
    }
}
