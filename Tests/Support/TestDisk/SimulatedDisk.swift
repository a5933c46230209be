import Foundation
package import LinuxSystem
package import Synchronization

/// Numbers from a seed, the same on every machine (SplitMix64).
package struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    package init(seed: UInt64) {
        state = seed
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    package mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &self) < percent }
}

/// A disk in memory that forgets. What was written is seen by the process at once; what survives a power cut is only
/// what was synchronized, and of the rest any mixture of 512-byte blocks, old and new: dropped, torn and reordered
/// writes all look like that. Creations, removals and renames survive in order, up to a point chosen at the cut, not
/// before the last synchronized one (as with a journalling filesystem).
///
/// Single-threaded in effect: the tests run the background work on their own thread.
package final class SimulatedDisk: Disk {
    package static let block = 512

    /// One file's bytes, as seen and as surviving. Memory of fixed place, so that mappings see later writes.
    final class Content: @unchecked Sendable {
        static let reserve = 4 << 20
        let live: UnsafeMutableRawPointer
        var size: Int64 = 0
        var durable: [UInt8] = []
        /// Blocks that may differ from `durable`.
        var dirty: Set<Int> = []
        var sizeIsDirty = false
        var modified: Int64 = 0

        init() {
            guard
                let memory = mmap(
                    nil, Self.reserve, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
                memory != MAP_FAILED
            else { fatalError("no memory for a simulated file") }
            live = memory
        }

        deinit {
            munmap(live, Self.reserve)
        }

        convenience init(bytes: [UInt8]) {
            self.init()
            bytes.withUnsafeBytes {
                if let base = $0.baseAddress { live.copyMemory(from: base, byteCount: bytes.count) }
            }
            size = Int64(bytes.count)
            durable = bytes
        }

        func bytes(_ range: Range<Int>) -> UnsafeRawBufferPointer {
            UnsafeRawBufferPointer(start: live + range.lowerBound, count: range.count)
        }

        func markDirty(_ range: Range<Int>) {
            guard !range.isEmpty else { return }
            for block in (range.lowerBound / SimulatedDisk.block)...((range.upperBound - 1) / SimulatedDisk.block) {
                dirty.insert(block)
            }
        }

        func makeDurable() {
            if sizeIsDirty { resizeDurable(Int(size)) }
            for block in dirty { makeDurable(block) }
            dirty = []
            sizeIsDirty = false
        }

        func makeDurable(_ block: Int) {
            let start = block * SimulatedDisk.block
            guard start < Int(size) else { return }
            let range = start..<min(start + SimulatedDisk.block, Int(size))
            if durable.count < range.upperBound { resizeDurable(range.upperBound) }
            durable.replaceSubrange(range, with: bytes(range))
        }

        private func resizeDurable(_ size: Int) {
            if durable.count > size {
                durable.removeLast(durable.count - size)
            } else {
                durable.append(contentsOf: repeatElement(0, count: size - durable.count))
            }
        }

        /// What a power cut leaves.
        func afterPowerCut(_ random: inout SeededGenerator) -> Content {
            var left = durable
            if sizeIsDirty, random.chance(70) {
                if left.count > Int(size) {
                    left.removeLast(left.count - Int(size))
                } else {
                    left.append(contentsOf: repeatElement(0, count: Int(size) - left.count))
                }
            }
            // Mostly all or nothing, sometimes a mixture: both must be survived.
            let percent = [0, 100, 50, 90, 10].randomElement(using: &random) ?? 50
            for block in dirty.sorted() where random.chance(percent) {
                let start = block * SimulatedDisk.block
                let end = min(start + SimulatedDisk.block, Int(size), left.count)
                guard start < end else { continue }
                let range = start..<end
                left.replaceSubrange(range, with: bytes(range))
            }
            return Content(bytes: left)
        }

        func copy() -> Content {
            Content(bytes: Array(bytes(0..<Int(size))))
        }
    }

    private enum Change {
        case link(String, Content)
        case unlink(String)
        case rename(String, String)
        case makeDirectory(String)
        case removeDirectory(String)

        /// Folders whose synchronization makes it durable.
        var folders: [String] {
            switch self {
            case .link(let path, _), .unlink(let path), .makeDirectory(let path), .removeDirectory(let path):
                [parent(path)]
            case .rename(let source, let target): [parent(source), parent(target)]
            }
        }
    }

    private struct Names {
        var files: [String: Content] = [:]
        var folders: Set<String> = ["/"]

        mutating func apply(_ change: Change) {
            switch change {
            case .link(let path, let content): files[path] = content
            case .unlink(let path): files[path] = nil
            case .rename(let source, let target):
                if let file = files.removeValue(forKey: source) { files[target] = file }
                for path in files.keys where path.hasPrefix(source + "/") {
                    files[target + path.dropFirst(source.count)] = files.removeValue(forKey: path)
                }
                for path in folders where path == source || path.hasPrefix(source + "/") {
                    folders.remove(path)
                    folders.insert(target + path.dropFirst(source.count))
                }
            case .makeDirectory(let path): folders.insert(path)
            case .removeDirectory(let path): folders.remove(path)
            }
        }
    }

    private struct State {
        var live = Names()
        var durable = Names()
        var pending: [Change] = []
        var locked: Set<String> = []
    }

    private let state = Mutex(State())
    /// Asked before every change of a file: an errno to fail with. `call` is the system call's name.
    package let fault = Mutex<(@Sendable (_ call: String, _ path: String) -> Int32?)?>(nil)
    /// Told before every change of the disk: a test takes its crash image there. For writes, the bytes about to be
    /// written.
    package let watcher = Mutex<(@Sendable (_ write: (path: String, offset: Int64, bytes: [UInt8])?) -> Void)?>(nil)
    /// Bytes all files may have in blocks that were written; nil for no limit.
    package let capacity = Mutex<Int?>(nil)
    package let now: @Sendable () -> Int64

    package init(now: @escaping @Sendable () -> Int64 = { 0 }) {
        self.now = now
    }

    // MARK: - Crashing

    /// The disk as the next process finds it after a kill: everything written is there.
    package func afterKill() -> SimulatedDisk {
        let next = SimulatedDisk(now: now)
        state.withLock { old in
            next.state.withLock { new in
                new.live.folders = old.live.folders
                for (path, content) in old.live.files {
                    let copy = content.copy()
                    copy.modified = content.modified
                    // Unsynchronized is what it was: a later power cut may still take it.
                    new.live.files[path] = copy
                    copy.durable = content.durable
                    copy.dirty = content.dirty
                    copy.sizeIsDirty = content.sizeIsDirty
                }
                // A simplification that loses no cases: names that were not durable yet are pending in one piece.
                new.durable = new.live
            }
        }
        return next
    }

    /// The disk after a power cut.
    package func afterPowerCut(_ random: inout SeededGenerator) -> SimulatedDisk {
        let next = SimulatedDisk(now: now)
        let names = state.withLock { old in
            var names = old.durable
            let kept = old.pending.isEmpty ? 0 : Int.random(in: 0...old.pending.count, using: &random)
            for change in old.pending.prefix(kept) { names.apply(change) }
            return names
        }
        var files: [String: Content] = [:]
        for (path, content) in names.files.sorted(by: { $0.key < $1.key }) {
            let left = content.afterPowerCut(&random)
            left.modified = content.modified
            files[path] = left
        }
        let left = files
        next.state.withLock { new in
            new.live = Names(files: left, folders: names.folders)
            new.durable = new.live
        }
        return next
    }

    /// The kernel writes some dirty blocks back by itself.
    package func writeSomeBack(_ random: inout SeededGenerator) {
        let contents = state.withLock { state in state.live.files.sorted { $0.key < $1.key }.map { $0.value } }
        for content in contents where !content.dirty.isEmpty && random.chance(30) {
            for block in content.dirty.sorted() where random.chance(50) {
                content.makeDurable(block)
                content.dirty.remove(block)
            }
        }
    }

    /// Flips one bit of a file.
    package func flip(_ path: String, byte: Int, bit: Int) {
        state.withLock { state in
            guard let content = state.live.files[path] else { return }
            let place = content.live + byte
            place.storeBytes(of: place.load(as: UInt8.self) ^ (1 << bit), as: UInt8.self)
            if byte < content.durable.count { content.durable[byte] ^= 1 << bit }
        }
    }

    package var paths: [String] { state.withLock { $0.live.files.keys.sorted() } }

    package func bytes(_ path: String) -> [UInt8]? {
        state.withLock { state in state.live.files[path].map { Array($0.bytes(0..<Int($0.size))) } }
    }

    package func removeTree(_ path: String) {
        state.withLock { state in
            for name in state.live.files.keys where name.hasPrefix(path + "/") {
                state.live.files[name] = nil
                state.durable.files[name] = nil
            }
            for name in state.live.folders where name == path || name.hasPrefix(path + "/") {
                state.live.folders.remove(name)
                state.durable.folders.remove(name)
            }
        }
    }

    /// A write that was under way when the process was killed.
    package func apply(_ path: String, offset: Int64, bytes: ArraySlice<UInt8>) {
        state.withLock { state in
            guard let content = state.live.files[path] else { return }
            for (index, byte) in bytes.enumerated() {
                (content.live + Int(offset) + index).storeBytes(of: byte, as: UInt8.self)
            }
            let end = offset + Int64(bytes.count)
            content.markDirty(Int(offset)..<Int(end))
            if end > content.size {
                content.size = end
                content.sizeIsDirty = true
            }
        }
    }

    func check(_ call: String, _ path: String, write: (path: String, offset: Int64, bytes: [UInt8])? = nil)
        throws(SystemError)
    {
        if call != "open", call != "pread", let watch = watcher.withLock({ $0 }) { watch(write) }
        let question = fault.withLock { $0 }
        if let code = question?(call, path) { throw SystemError(errno: code, call: call, subject: path) }
    }

    /// How much of `count` new bytes fits; nil for all.
    func room(for count: Int) -> Int? {
        guard let limit = capacity.withLock({ $0 }) else { return nil }
        let used = state.withLock { state in
            state.live.files.values.reduce(0) { $0 + $1.dirty.count * Self.block + Self.written($1) }
        }
        return used + count <= limit ? nil : max(0, limit - used)
    }

    private static func written(_ content: Content) -> Int {
        // Only blocks with something in them take room: files are sparse. A block that is written again takes no more.
        var count = 0
        var offset = 0
        while offset < content.durable.count {
            let end = min(offset + block, content.durable.count)
            if !content.dirty.contains(offset / block), content.durable[offset..<end].contains(where: { $0 != 0 }) {
                count += block
            }
            offset = end
        }
        return count
    }

    // MARK: - Disk

    private func change(_ change: Change) {
        state.withLock { state in
            state.live.apply(change)
            state.pending.append(change)
        }
    }

    package func open(_ path: String, _ mode: DiskOpenMode) throws(SystemError) -> any DiskFile {
        try check("open", path)
        let existing = state.withLock { $0.live.files[path] }
        if let existing {
            let file = SimulatedFile(disk: self, path: path, content: existing)
            if case .replace = mode { try file.truncate(to: 0) }
            return file
        }
        switch mode {
        case .read, .readWrite: throw SystemError(errno: ENOENT, call: "open", subject: path)
        case .create, .replace: break
        }
        guard state.withLock({ $0.live.folders.contains(parent(path)) }) else {
            throw SystemError(errno: ENOENT, call: "open", subject: path)
        }
        let content = Content()
        content.modified = now()
        change(.link(path, content))
        return SimulatedFile(disk: self, path: path, content: content)
    }

    package func information(_ path: String) throws(SystemError) -> DiskFileInformation? {
        state.withLock { state in
            if let content = state.live.files[path] {
                return DiskFileInformation(size: content.size, modified: content.modified, isDirectory: false)
            }
            return state.live.folders.contains(path)
                ? DiskFileInformation(size: 0, modified: 0, isDirectory: true) : nil
        }
    }

    package func list(_ directory: String) throws(SystemError) -> [String] {
        state.withLock { state in
            var names: Set<String> = []
            let prefix = directory + "/"
            for path in state.live.files.keys where path.hasPrefix(prefix) {
                names.insert(String(path.dropFirst(prefix.count).prefix { $0 != "/" }))
            }
            for path in state.live.folders where path.hasPrefix(prefix) {
                names.insert(String(path.dropFirst(prefix.count).prefix { $0 != "/" }))
            }
            return names.sorted()
        }
    }

    package func createDirectory(_ path: String) throws(SystemError) {
        if state.withLock({ $0.live.folders.contains(path) }) { return }
        try check("mkdir", path)
        if parent(path) != "" { try createDirectory(parent(path)) }
        change(.makeDirectory(path))
    }

    package func remove(_ path: String) throws(SystemError) {
        try check("remove", path)
        let (isFile, isFolder) = state.withLock { ($0.live.files[path] != nil, $0.live.folders.contains(path)) }
        if isFile {
            change(.unlink(path))
        } else if isFolder {
            guard try list(path).isEmpty else { throw SystemError(errno: ENOTEMPTY, call: "remove", subject: path) }
            change(.removeDirectory(path))
        }
    }

    package func rename(_ source: String, to target: String) throws(SystemError) {
        try check("rename", source)
        guard state.withLock({ $0.live.files[source] != nil || $0.live.folders.contains(source) }) else {
            throw SystemError(errno: ENOENT, call: "rename", subject: source)
        }
        change(.rename(source, target))
    }

    package func synchronizeDirectory(_ path: String) throws(SystemError) {
        try check("fsync", path)
        state.withLock { state in
            // A journal keeps its order: with the last change of this folder all before it become durable.
            guard let last = state.pending.lastIndex(where: { $0.folders.contains(path) }) else { return }
            for change in state.pending[...last] { state.durable.apply(change) }
            state.pending.removeFirst(last + 1)
        }
    }

    package func synchronizeAll(_ path: String) throws(SystemError) {
        do throws(SystemError) {
            try check("syncfs", path)
        } catch {
            state.withLock { for content in $0.live.files.values { content.dirty = [] } }
            throw error
        }
        state.withLock { state in
            for content in state.live.files.values { content.makeDurable() }
            state.durable = state.live
            state.pending = []
        }
    }

    package func space(_ path: String) throws(SystemError) -> DiskSpace {
        let limit = capacity.withLock { $0 } ?? 1 << 40
        let left = room(for: .max / 2) ?? limit
        return DiskSpace(total: Int64(limit), available: Int64(left))
    }

    package func lock(_ path: String) throws(SystemError) -> (any DiskFile)? {
        try open(path, .create)
    }
}

private func parent(_ path: String) -> String {
    String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
}

private final class SimulatedFile: DiskFile, @unchecked Sendable {
    let path: String
    private let disk: SimulatedDisk
    private let content: SimulatedDisk.Content

    init(disk: SimulatedDisk, path: String, content: SimulatedDisk.Content) {
        self.disk = disk
        self.path = path
        self.content = content
    }

    var descriptor: Int32 { -1 }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(SystemError) {
        var failure: Int32?
        var count = bytes.count
        do throws(SystemError) {
            let isWatched = disk.watcher.withLock { $0 != nil }
            try disk.check("pwrite", path, write: isWatched ? (path, offset, Array(bytes)) : nil)
        } catch {
            // A failed write may have written a part of it, up to the end of a page.
            failure = error.errno
            count = max(0, (Int(offset) + bytes.count / 2) / 4096 * 4096 - Int(offset))
        }
        if failure == nil, let room = disk.room(for: bytes.count) {
            failure = ENOSPC
            count = min(room, bytes.count)
        }
        precondition(Int(offset) + count <= SimulatedDisk.Content.reserve, "a simulated file is too small for the test")
        if count > 0, let base = bytes.baseAddress {
            (content.live + Int(offset)).copyMemory(from: base, byteCount: count)
            content.markDirty(Int(offset)..<(Int(offset) + count))
            if Int64(count) + offset > content.size {
                content.size = Int64(count) + offset
                content.sizeIsDirty = true
            }
            content.modified = disk.now()
        }
        if let failure { throw SystemError(errno: failure, call: "pwrite", subject: path) }
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int64) throws(SystemError) -> Int {
        try disk.check("pread", path)
        let count = max(0, min(buffer.count, Int(content.size - offset)))
        if count > 0, let base = buffer.baseAddress {
            base.copyMemory(from: content.live + Int(offset), byteCount: count)
        }
        return count
    }

    func synchronize() throws(SystemError) {
        do throws(SystemError) {
            try disk.check("fdatasync", path)
        } catch {
            // As Linux does: the pages count as clean from now on, and are lost unless they are written again.
            content.dirty = []
            throw error
        }
        content.makeDurable()
    }

    func startWriteback(from offset: Int64, length: Int64) {}

    func size() throws(SystemError) -> Int64 { content.size }

    func truncate(to size: Int64) throws(SystemError) {
        try disk.check("ftruncate", path)
        precondition(size <= Int64(SimulatedDisk.Content.reserve), "a simulated file is too small for the test")
        if size < content.size {
            let range = Int(size)..<Int(content.size)
            (content.live + range.lowerBound).initializeMemory(as: UInt8.self, repeating: 0, count: range.count)
            content.markDirty(range)
        }
        content.size = size
        content.sizeIsDirty = true
        content.modified = disk.now()
    }

    func allocate(from offset: Int64, length: Int64) throws(SystemError) -> Bool {
        try disk.check("fallocate", path)
        return true
    }

    func firstHole(from offset: Int64) -> Int64 { content.size }
    func firstData(from offset: Int64) -> Int64? { offset < content.size ? offset : nil }

    func map(from offset: Int64, length: Int) throws(SystemError) -> MappedRegion {
        let content = content
        return MappedRegion(adopting: content.bytes(Int(offset)..<(Int(offset) + length))) { _ in
            // Keeps the memory until the mapping goes.
            withExtendedLifetime(content) {}
        }
    }
}
