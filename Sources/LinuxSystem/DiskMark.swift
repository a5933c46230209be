import CLinux
import Glibc

/// The file `.apus-disk` at the top of a disk. It identifies the disk wherever it is mounted. Its absence distinguishes
/// a mount point without its disk from the disk. Three lines of text: `id=`, `slot=` (absent when the broker has no
/// number of its own) and `brokerName=`.
package struct DiskMark: Hashable, Sendable {
    /// In the disk's top folder.
    package static let fileName = ".apus-disk"
    private static let bytesMax = 4096
    /// The numbers brokers of `disks` have. Ports and names are made of them: any other number is a slip of a hand.
    package static let slots = 0...9999

    /// 32 hexadecimal digits.
    package var identity: String
    /// The broker's number with `disks`; nil for a `[[broker]]` table.
    package var slot: Int?
    /// Whose store lies here.
    package var brokerName: String

    package init(identity: String, slot: Int?, brokerName: String) {
        self.identity = identity
        self.slot = slot
        self.brokerName = brokerName
    }

    /// 128 random bits in hex.
    package static func newIdentity() -> String {
        var generator = SystemRandomNumberGenerator()
        let digits = "\(String(generator.next(), radix: 16))\(String(generator.next(), radix: 16))"
        return digits + String(repeating: "0", count: 32 - digits.count)
    }

    /// The file's content, a line `KEY=VALUE` for each field.
    package var text: String {
        "id=\(identity)\n" + (slot.map { "slot=\($0)\n" } ?? "") + "brokerName=\(brokerName)\n"
    }

    /// nil when it is not such a file.
    package init?(parsing text: String) {
        var fields: [Substring: Substring] = [:]
        for line in text.split(whereSeparator: \.isNewline) {
            let pair = line.split(separator: "=", maxSplits: 1)
            if pair.count == 2 { fields[pair[0]] = pair[1] }
        }
        guard let identity = fields["id"], let name = fields["brokerName"], Self.isWord(identity), Self.isWord(name)
        else {
            return nil
        }
        let slot = fields["slot"].map { DiskMark.slot($0) }
        // A number that is none is not the same as no number: the disk would become another broker's.
        if case .some(nil) = slot { return nil }
        self.init(identity: String(identity), slot: slot ?? nil, brokerName: String(name))
    }

    /// No blank and no control character: the register of disks has a line of words for each disk. Names of brokers may
    /// have other white space.
    private static func isWord(_ text: Substring) -> Bool {
        text.unicodeScalars.allSatisfy { $0 != " " && $0.properties.generalCategory != .control }
    }

    /// nil when the text is none of `slots`.
    package static func slot(_ text: some StringProtocol) -> Int? {
        Int(text).flatMap { slots.contains($0) ? $0 : nil }
    }

    /// The mark in `folder`, nil when there is none. A file that is no mark is an EUCLEAN error.
    /// - Throws: the mark is there and cannot be read.
    package static func read(in folder: String) throws(SystemError) -> DiskMark? {
        let path = "\(folder)/\(fileName)"
        let fd = apus_open(path, O_RDONLY, 0)
        if fd == -ENOENT || fd == -ENOTDIR { return nil }
        let file = Descriptor(owning: try check(fd, "open", path))
        var buffer = [UInt8](repeating: 0, count: bytesMax)
        let count = try call("read", path) { Glibc.read(file.raw, &buffer, bytesMax) }
        guard let mark = DiskMark(parsing: String(decoding: buffer[..<count], as: UTF8.self)) else {
            throw SystemError(errno: EUCLEAN, call: "read", subject: path)
        }
        return mark
    }

    /// Puts the mark there, whole or not at all, and on the disk when this returns.
    /// - Throws: it cannot be written or flushed.
    package func write(in folder: String) throws(SystemError) {
        let path = "\(folder)/\(DiskMark.fileName)"
        try DurableFile.replace(path, with: text)
    }

    /// What lies where a mark should.
    package enum Reading: Sendable {
        case mark(DiskMark)
        case none
        case failed(SystemError)
        /// Nothing came back in time: the disk hangs. Its thread goes on waiting, without harm.
        case noAnswer
    }

    /// The same for a caller that must not wait for a hanging disk: another thread does.
    package static func read(in folder: String, withinMilliseconds limit: Int32) -> Reading {
        final class Question {
            let folder: String
            let answer: SharedDescriptor
            init(folder: String, answer: SharedDescriptor) {
                self.folder = folder
                self.answer = answer
            }
        }
        let ends: (first: SharedDescriptor, second: SharedDescriptor)
        do throws(SystemError) { ends = try SocketPair.create(sequencedPackets: true).ends() } catch {
            return .failed(error)
        }
        let question = Unmanaged.passRetained(Question(folder: folder, answer: ends.second))
        var thread = pthread_t()
        let failure = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                let question = Unmanaged<Question>.fromOpaque(context).takeRetainedValue()
                let answer: [UInt8]
                do throws(SystemError) {
                    answer = try DiskMark.read(in: question.folder).map { [1] + Array($0.text.utf8) } ?? [2]
                } catch {
                    answer = [3, UInt8(truncatingIfNeeded: error.errno)]
                }
                // The caller waits no longer: the answer came too late.
                _ = Glibc.send(question.answer.raw, answer, answer.count, Int32(MSG_NOSIGNAL))
                return nil
            }, question.toOpaque())
        guard failure == 0 else {
            question.release()
            return .failed(SystemError(errno: failure, call: "pthread_create", subject: folder))
        }
        pthread_detach(thread)
        var polled = pollfd(fd: ends.first.raw, events: Int16(POLLIN), revents: 0)
        guard poll(&polled, 1, limit) == 1 else { return .noAnswer }
        var buffer = [UInt8](repeating: 0, count: bytesMax + 1)
        let count = Glibc.read(ends.first.raw, &buffer, buffer.count)
        guard count > 0 else { return .noAnswer }
        switch buffer[0] {
        case 1:
            let mark = DiskMark(parsing: String(decoding: buffer[1..<count], as: UTF8.self))
            return mark.map { .mark($0) } ?? .none
        case 3: return .failed(SystemError(errno: Int32(buffer[1]), call: "open", subject: folder))
        default: return .none
        }
    }
}

/// What a path stands on.
package enum MountPoint {
    /// The number of the file system that holds `path`; nil when there is nothing or it cannot be asked.
    package static func device(of path: String) -> UInt64? {
        var status = stat()
        return stat(path, &status) == 0 ? UInt64(status.st_dev) : nil
    }

    /// Whether another file system than that of the folder above begins here.
    package static func isMounted(at path: String) -> Bool {
        guard let own = device(of: path), let above = device(of: "\(path)/..") else { return false }
        return own != above
    }

    /// Whether the file system that holds `path` takes no writes.
    /// - Throws: the path does not exist.
    package static func isReadOnly(_ path: String) throws(SystemError) -> Bool {
        var status = statvfs()
        try call("statvfs", path) { statvfs(path, &status) }
        return status.f_flag & UInt(ST_RDONLY) != 0
    }
}

/// Asks a disk itself whether it works. Throws only when it does not: a full disk works.
package enum DiskProbe {
    private static let blockBytes = 4096

    /// Reads a block of the mark past the page cache; does nothing where there is no mark or the file system cannot.
    /// - Throws: the disk fails.
    package static func read(in folder: String) throws(SystemError) {
        let path = "\(folder)/\(DiskMark.fileName)"
        let fd = apus_open(path, O_RDONLY | apus_direct_flag(), 0)
        if [-ENOENT, -EINVAL, -EACCES, -EMFILE, -ENFILE].contains(fd) { return }
        let file = Descriptor(owning: try check(fd, "open", path))
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockBytes, alignment: blockBytes)
        defer { buffer.deallocate() }
        while pread(file.raw, buffer.baseAddress, blockBytes, 0) < 0 {
            if errno == EINTR { continue }
            if errno == EINVAL { return }
            throw SystemError(errno: errno, call: "read", subject: path)
        }
    }

    /// Writes a small file there and waits until it is on the disk.
    /// - Throws: the disk fails or may not be written; a full one is no error.
    package static func write(in folder: String) throws(SystemError) {
        let path = "\(folder)/\(DiskMark.fileName)-probe"
        let fd = apus_open(path, O_RDWR | O_CREAT | O_TRUNC, 0o644)
        if [-ENOSPC, -EDQUOT, -EMFILE, -ENFILE].contains(fd) { return }
        let file = Descriptor(owning: try check(fd, "open", path))
        defer { unlink(path) }
        do throws(SystemError) {
            try call("write", path) { Glibc.write(file.raw, path, 1) }
            try call("fdatasync", path) { fdatasync(file.raw) }
        } catch {
            if error.errno != ENOSPC && error.errno != EDQUOT { throw error }
        }
    }
}

/// Small files that are replaced whole.
package enum DurableFile {
    /// Writes `path` anew: a reader sees the old or the new text, also after a power cut.
    /// - Throws: the new text cannot be written; the old one stays.
    package static func replace(_ path: String, with text: String) throws(SystemError) {
        let temporary = "\(path).new"
        let file = Descriptor(
            owning: try check(apus_open(temporary, O_RDWR | O_CREAT | O_TRUNC, 0o644), "open", temporary))
        let bytes = Array(text.utf8)
        let count = try call("write", temporary) { Glibc.write(file.raw, bytes, bytes.count) }
        guard count == bytes.count else { throw SystemError(errno: ENOSPC, call: "write", subject: temporary) }
        try call("fdatasync", temporary) { fdatasync(file.raw) }
        try call("rename", path) { rename(temporary, path) }
        let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        let directory = try RunDirectory.open(folder.isEmpty ? "/" : folder)
        try call("fsync", folder) { fsync(directory.raw) }
    }

    /// All of a small file, nil when there is none.
    /// - Throws: the file exists and cannot be read, or has more bytes than that (`EFBIG`).
    package static func read(_ path: String, bytesMax: Int = 16 << 20) throws(SystemError) -> String? {
        let fd = apus_open(path, O_RDONLY, 0)
        if fd == -ENOENT { return nil }
        let file = Descriptor(owning: try check(fd, "open", path))
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = try call("read", path) { Glibc.read(file.raw, &buffer, 4096) }
            if count == 0 { return String(decoding: all, as: UTF8.self) }
            guard count <= bytesMax - all.count else { throw SystemError(errno: EFBIG, call: "read", subject: path) }
            all += buffer[..<count]
        }
    }
}
