import CFilterPlugin
import Glibc
package import Logging

/// What the plugins of this process see of us: the C struct of `apus_filter.h` and the logger its `log` writes to.
///
/// Plugins keep the pointer until the process ends, so a host is never freed.
package final class FilterHost: @unchecked Sendable {
    let logger: Logger
    private(set) var pointer: UnsafePointer<apus_filter_host>

    package init(logger: Logger) {
        self.logger = logger
        let host = UnsafeMutablePointer<apus_filter_host>.allocate(capacity: 1)
        host.initialize(
            to: apus_filter_host(
                struct_size: UInt32(MemoryLayout<apus_filter_host>.size),
                abi_version: UInt32(APUS_FILTER_ABI_VERSION),
                context: nil,
                log: logFromPlugin))
        pointer = UnsafePointer(host)
        host.pointee.context = Unmanaged.passRetained(self).toOpaque()
    }
}

/// Longest line a plugin may write to the journal; the rest is cut.
private let longestLogLine = 2048

private func logFromPlugin(
    _ context: UnsafeMutableRawPointer?, _ level: Int32, _ text: UnsafePointer<CChar>?, _ length: Int
) {
    guard let context, let text, length > 0 else { return }
    let host = Unmanaged<FilterHost>.fromOpaque(context).takeUnretainedValue()
    let bytes = UnsafeRawBufferPointer(start: text, count: min(length, longestLogLine))
    let line = String(decoding: bytes, as: UTF8.self)
    switch level {
    case APUS_FILTER_LOG_INFO: host.logger.info("plugin: \(line)")
    case APUS_FILTER_LOG_WARNING: host.logger.warning("plugin: \(line)")
    default: host.logger.error("plugin: \(line)")
    }
}
