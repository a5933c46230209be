package import LinuxSystem
package import StoreFormat

/// A few read-only mapped windows over files of equal size that together make one long log. Confined to one thread.
///
/// Windows are small and few, so that resident memory stays bounded however much is read. The least recently used one
/// goes first, and `release()` unmaps those that were not used since the call before.
package final class LogWindows {
    /// Bytes of a file: byte `n` of the log lies in file `n / fileSize`.
    package let fileSize: Int64
    /// Called when a read failed; the read itself answers nil.
    package var readFailed: ((SystemError) -> Void)?

    private struct Window {
        var start: PhysicalOffset
        var region: MappedRegion
        var lastUse: UInt64
    }

    /// Bytes; windows begin at multiples of it inside each file.
    package let windowSize: Int64
    private let maximumWindows: Int
    /// The open file whose first byte is `base`, or nil when there is none.
    private let file: (_ base: PhysicalOffset) -> (any DiskFile)?
    private var windows: [Window] = []
    /// The window used last, as plain numbers: the hit path touches nothing that is counted.
    private var currentStart = PhysicalOffset(0)
    private var currentEnd = PhysicalOffset(0)
    private var currentBase = UnsafeRawPointer(bitPattern: 1)
    private var clock: UInt64 = 0
    private var releaseMark: UInt64 = 0
    /// For what does not lie in one window.
    private(set) var scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 0, alignment: 16)

    /// - Parameters:
    ///   - fileSize: of the log's files, bytes.
    ///   - windowSize: bytes, a multiple of 4096.
    ///   - maximumWindows: mapped at a time.
    ///   - file: the open file whose first byte is `base`, or nil when there is none.
    package init(
        fileSize: Int64, windowSize: Int64 = 4 << 20, maximumWindows: Int = 8,
        file: @escaping (PhysicalOffset) -> (any DiskFile)?
    ) {
        precondition(windowSize % 4096 == 0 && maximumWindows > 0, "windows are whole pages")
        self.fileSize = fileSize
        self.windowSize = windowSize
        self.maximumWindows = maximumWindows
        self.file = file
    }

    deinit {
        scratch.deallocate()
    }

    /// The bytes `offset ..< offset + size`, which may cross windows and files; nil when they are not there. The
    /// pointer is valid until the next call.
    @inline(__always)
    package func bytes(at offset: PhysicalOffset, size: Int) -> UnsafeRawBufferPointer? {
        if offset >= currentStart, size >= 0, offset <= currentEnd - Int64(size), let base = currentBase {
            return UnsafeRawBufferPointer(start: base + Int(offset - currentStart), count: size)
        }
        return find(offset, size)
    }

    /// Unmaps what was not used since the previous call, and frees the buffer for large reads.
    package func release() {
        windows.removeAll { $0.lastUse <= releaseMark }
        releaseMark = clock
        // Hits on the current window are not counted; the next one will be.
        currentStart = PhysicalOffset(0)
        currentEnd = PhysicalOffset(0)
        if scratch.count > 0 {
            scratch.deallocate()
            scratch = .allocate(byteCount: 0, alignment: 16)
        }
    }

    /// Forgets every window (files were deleted or cut).
    package func reset() {
        windows.removeAll()
        currentStart = PhysicalOffset(0)
        currentEnd = PhysicalOffset(0)
    }

    /// Where the file that holds `offset` begins.
    private func base(of offset: PhysicalOffset) -> PhysicalOffset {
        PhysicalOffset(offset.rawValue / fileSize * fileSize)
    }

    private func find(_ offset: PhysicalOffset, _ size: Int) -> UnsafeRawBufferPointer? {
        // A damaged entry may name any offset, and no file is so large that one begins up there.
        guard offset.rawValue >= 0, offset.rawValue <= Int64.max / 2, size >= 0, Int64(size) <= Int64.max / 4 else {
            return nil
        }
        clock += 1
        let end = offset + Int64(size)
        let base = base(of: offset)
        let start = base + (offset - base) / windowSize * windowSize
        for index in windows.indices where windows[index].start == start {
            let window = windows[index]
            if end <= window.start + Int64(window.region.bytes.count) {
                windows[index].lastUse = clock
                return use(window, offset, size)
            }
        }
        let limit = min(start + windowSize, base + fileSize)
        if end <= limit {
            guard let window = map(base: base, start: start, limit: limit) else { return nil }
            if end <= window.start + Int64(window.region.bytes.count) { return use(window, offset, size) }
        }
        return copy(offset, size)
    }

    private func use(_ window: Window, _ offset: PhysicalOffset, _ size: Int) -> UnsafeRawBufferPointer? {
        guard let pointer = window.region.bytes.baseAddress else { return nil }
        currentStart = window.start
        currentEnd = window.start + Int64(window.region.bytes.count)
        currentBase = pointer
        return UnsafeRawBufferPointer(start: pointer + Int(offset - window.start), count: size)
    }

    private func map(base: PhysicalOffset, start: PhysicalOffset, limit: PhysicalOffset) -> Window? {
        guard let file = file(base) else { return nil }
        do throws(SystemError) {
            // A file shorter than its name promises must not be mapped past its end: touching that would kill the
            // process.
            let available = min(limit - base, try file.size()) - (start - base)
            guard available > 0 else { return nil }
            let window = Window(
                start: start, region: try file.map(from: start - base, length: Int(available)), lastUse: clock)
            if windows.count >= maximumWindows,
                let oldest = windows.indices.min(by: { windows[$0].lastUse < windows[$1].lastUse })
            {
                windows.remove(at: oldest)
            }
            windows.append(window)
            return window
        } catch {
            readFailed?(error)
            return nil
        }
    }

    /// What does not lie in one window is copied together.
    private func copy(_ offset: PhysicalOffset, _ size: Int) -> UnsafeRawBufferPointer? {
        if scratch.count < size {
            scratch.deallocate()
            scratch = .allocate(byteCount: max(size, 64 * 1024), alignment: 16)
        }
        var done = 0
        while done < size {
            let at = offset + Int64(done)
            let base = base(of: at)
            let part = Int(min(Int64(size - done), base + fileSize - at))
            guard let file = file(base) else { return nil }
            do throws(SystemError) {
                let count = try file.read(
                    into: UnsafeMutableRawBufferPointer(rebasing: scratch[done..<(done + part)]), at: at - base)
                guard count == part else { return nil }
            } catch {
                readFailed?(error)
                return nil
            }
            done += part
        }
        return UnsafeRawBufferPointer(rebasing: scratch[0..<size])
    }
}
