import Glibc
import LinuxSystem

/// A disk in memory for one input. Every file's bytes have an allocation of exactly their size, and mappings point
/// right into it, so that the address sanitizer sees the first step outside.
final class FuzzDisk: Disk {
    final class Content: @unchecked Sendable {
        private(set) var memory: UnsafeMutableRawBufferPointer
        private(set) var size: Int
        /// Mappings outlive a change of size.
        private var retired: [UnsafeMutableRawBufferPointer] = []

        init(_ bytes: [UInt8]) {
            memory = .allocate(byteCount: bytes.count, alignment: 16)
            memory.copyBytes(from: bytes)
            size = bytes.count
        }

        deinit {
            for old in retired { old.deallocate() }
            memory.deallocate()
        }

        var bytes: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: memory[0..<size]) }

        func resize(_ count: Int) {
            if count > memory.count {
                let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
                larger.initializeMemory(as: UInt8.self, repeating: 0)
                larger.copyMemory(from: UnsafeRawBufferPointer(bytes))
                retired.append(memory)
                memory = larger
            } else {
                let (low, high) = (min(size, count), max(size, count))
                UnsafeMutableRawBufferPointer(rebasing: memory[low..<high]).initializeMemory(
                    as: UInt8.self, repeating: 0)
            }
            size = count
        }
    }

    /// Larger than anything a small store needs: who wants more has believed a damaged length.
    static let sizeMax = 64 << 20
    nonisolated(unsafe) private(set) var files: [String: Content] = [:]
    nonisolated(unsafe) private var folders: Set<String> = ["/"]

    init(files: [String: [UInt8]]) {
        for (path, bytes) in files { add(path, bytes) }
    }

    func add(_ path: String, _ bytes: [UInt8]) {
        files[path] = Content(bytes)
        var folder = Self.parent(path)
        while !folder.isEmpty {
            folders.insert(folder)
            folder = Self.parent(folder)
        }
    }

    /// What the next process finds after this one was killed.
    var image: [String: [UInt8]] { files.mapValues { Array($0.bytes) } }

    func forget(_ path: String) { files[path] = nil }

    private static func parent(_ path: String) -> String {
        String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    }

    /// The kernel's rules for names.
    private func check(_ path: String, _ call: String) throws(SystemError) {
        if path.split(separator: "/").contains(where: { $0.utf8.count > 255 }) {
            throw SystemError(errno: ENAMETOOLONG, call: call, subject: path)
        }
        if path.contains("\0") { throw SystemError(errno: EINVAL, call: call, subject: path) }
    }

    func open(_ path: String, _ mode: DiskOpenMode) throws(SystemError) -> any DiskFile {
        try check(path, "open")
        if folders.contains(path) { throw SystemError(errno: EISDIR, call: "open", subject: path) }
        if let content = files[path] {
            if case .replace = mode { content.resize(0) }
            return FuzzFile(path: path, content: content)
        }
        switch mode {
        case .read, .readWrite: throw SystemError(errno: ENOENT, call: "open", subject: path)
        case .create, .replace:
            guard folders.contains(Self.parent(path)) else {
                throw SystemError(errno: ENOENT, call: "open", subject: path)
            }
            let content = Content([])
            files[path] = content
            return FuzzFile(path: path, content: content)
        }
    }

    func information(_ path: String) throws(SystemError) -> DiskFileInformation? {
        if let content = files[path] {
            return DiskFileInformation(size: Int64(content.size), modified: 0, isDirectory: false)
        }
        return folders.contains(path) ? DiskFileInformation(size: 0, modified: 0, isDirectory: true) : nil
    }

    func list(_ directory: String) throws(SystemError) -> [String] {
        let prefix = directory + "/"
        var names: Set<String> = []
        for path in files.keys where path.hasPrefix(prefix) {
            names.insert(String(path.dropFirst(prefix.count).prefix { $0 != "/" }))
        }
        for path in folders where path.hasPrefix(prefix) {
            names.insert(String(path.dropFirst(prefix.count).prefix { $0 != "/" }))
        }
        return names.sorted()
    }

    func createDirectory(_ path: String) throws(SystemError) {
        try check(path, "mkdir")
        if files[path] != nil { throw SystemError(errno: ENOTDIR, call: "mkdir", subject: path) }
        var path = path
        while !path.isEmpty {
            folders.insert(path)
            path = Self.parent(path)
        }
    }

    func remove(_ path: String) throws(SystemError) {
        if files.removeValue(forKey: path) != nil { return }
        if try !list(path).isEmpty { throw SystemError(errno: ENOTEMPTY, call: "remove", subject: path) }
        folders.remove(path)
    }

    func rename(_ source: String, to target: String) throws(SystemError) {
        try check(target, "rename")
        guard let content = files.removeValue(forKey: source) else {
            throw SystemError(errno: ENOENT, call: "rename", subject: source)
        }
        files[target] = content
    }

    func synchronizeDirectory(_ path: String) throws(SystemError) {}
    func synchronizeAll(_ path: String) throws(SystemError) {}

    func space(_ path: String) throws(SystemError) -> DiskSpace { DiskSpace(total: 1 << 40, available: 1 << 39) }

    func lock(_ path: String) throws(SystemError) -> (any DiskFile)? { try open(path, .create) }
}

private final class FuzzFile: DiskFile, @unchecked Sendable {
    let path: String
    private let content: FuzzDisk.Content

    init(path: String, content: FuzzDisk.Content) {
        self.path = path
        self.content = content
    }

    var descriptor: Int32 { -1 }

    private func check(_ end: Int64, _ call: String) throws(SystemError) {
        if end < 0 { throw SystemError(errno: EINVAL, call: call, subject: path) }
        if end > Int64(FuzzDisk.sizeMax) { throw SystemError(errno: EFBIG, call: call, subject: path) }
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        precondition(offset >= 0, "a write before the file's beginning")
        try check(offset &+ Int64(bytes.count), "pwrite")
        let end = Int(offset) + bytes.count
        if end > content.size { content.resize(end) }
        UnsafeMutableRawBufferPointer(rebasing: content.bytes[Int(offset)..<end]).copyMemory(from: bytes)
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        precondition(offset >= 0, "a read before the file's beginning")
        guard offset < Int64(content.size) else { return 0 }
        let count = min(buffer.count, content.size - Int(offset))
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: content.bytes[Int(offset)..<(Int(offset) + count)]))
        return count
    }

    func synchronize() throws(SystemError) {}
    func startWriteback(from offset: Int64, length: Int64) {}
    func size() throws(SystemError) -> Int64 { Int64(content.size) }

    func truncate(to size: Int64) throws(SystemError) {
        try check(size, "ftruncate")
        content.resize(Int(size))
    }

    func allocate(from offset: Int64, length: Int64) throws(SystemError) -> Bool { true }
    func firstHole(from offset: Int64) -> Int64 { Int64(content.size) }
    func firstData(from offset: Int64) -> Int64? { offset < Int64(content.size) ? offset : nil }

    func map(from offset: Int64, length: Int) throws(SystemError) -> MappedRegion {
        precondition(offset % 4096 == 0 && length > 0 && Int(offset) + length <= content.size, "a mapping past the end")
        let content = content
        return MappedRegion(
            adopting: UnsafeRawBufferPointer(rebasing: content.bytes[Int(offset)..<(Int(offset) + length)])
        ) { _ in withExtendedLifetime(content) {} }
    }
}
