import Glibc
import WorkerProtocol

/// Subscriptions that pulls named lately, by the bytes of type and expression in their headers: finding one makes no
/// string and hashes nothing. Confined to the broker's event loop.
struct RecentSubscriptions {
    private struct Known {
        let type: [UInt8]
        let expression: [UInt8]
        let subscription: CompiledSubscription
    }

    private static let count = 64
    /// Expressions beyond are found by name: they would only take memory here.
    private static let longestExpression = 4096

    private var places = [Known?](repeating: nil, count: RecentSubscriptions.count)

    /// Few expressions of one broker agree in length, beginning and end; those that do take turns.
    @inline(__always)
    private static func place(_ expression: UnsafeRawBufferPointer) -> Int {
        guard let base = expression.baseAddress, expression.count > 0 else { return 0 }
        let size = expression.count
        var hash = UInt64(size)
        if size >= 8 {
            hash ^= base.loadUnaligned(as: UInt64.self)
            hash = hash &* 0x9E37_79B9_7F4A_7C15 ^ base.loadUnaligned(fromByteOffset: size - 8, as: UInt64.self)
        } else {
            for byte in expression { hash = hash << 8 ^ UInt64(byte) }
        }
        return Int((hash &* 0x9E37_79B9_7F4A_7C15) >> 58)
    }

    @inline(__always)
    func find(_ type: UnsafeRawBufferPointer?, _ expression: UnsafeRawBufferPointer) -> CompiledSubscription? {
        guard let known = places[Self.place(expression)], Self.same(known.expression, expression),
            Self.same(known.type, type ?? UnsafeRawBufferPointer(start: nil, count: 0))
        else { return nil }
        return known.subscription
    }

    mutating func add(
        _ subscription: CompiledSubscription, _ type: UnsafeRawBufferPointer?, _ expression: UnsafeRawBufferPointer
    ) {
        guard expression.count <= Self.longestExpression, type?.count ?? 0 <= WorkerMessage.filterTypeMax else {
            return
        }
        places[Self.place(expression)] = Known(
            type: type.map { [UInt8]($0) } ?? [], expression: [UInt8](expression), subscription: subscription)
    }

    @inline(__always)
    private static func same(_ known: [UInt8], _ bytes: UnsafeRawBufferPointer) -> Bool {
        guard known.count == bytes.count else { return false }
        return known.withUnsafeBytes { known in
            guard let known = known.baseAddress, let base = bytes.baseAddress else { return true }
            return memcmp(known, base, bytes.count) == 0
        }
    }
}
