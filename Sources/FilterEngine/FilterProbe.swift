import CFilterPlugin
import Glibc

/// Asks a program about messages that lie in no log: for `apus plugin test`.
package struct FilterProbe {
    private let program: FilterProgram

    package init(_ program: FilterProgram) {
        self.program = program
    }

    /// The plugin could not evaluate the expression.
    package struct Failed: Error {}

    /// - Parameters:
    ///   - properties: as in the log: name 0x01 value 0x02 name 0x01 value.
    ///   - born, stored: milliseconds since 1970.
    ///   - copies: so many equal messages in one batch.
    ///   - batches: so many batches.
    /// - Returns: whether the message matches, and the nanoseconds one message took.
    /// - Throws: the plugin could not evaluate the expression.
    package func ask(
        properties: [UInt8], body: [UInt8] = [], tagsCode: Int64 = 0, born: Int64 = 0, stored: Int64 = 0,
        copies: Int = 1,
        batches: Int = 1
    ) throws(Failed) -> (matches: Bool, nanoseconds: Double) {
        precondition(copies > 0 && batches > 0, "at least one message is asked about")
        guard program.mayMatch(tagsCode: tagsCode) else { return (false, 0) }
        let bitmap = GuardedBitmap(maximumBytes: (copies + 7) / 8)
        let answer = properties.withUnsafeBufferPointer { properties in
            body.withUnsafeBufferPointer { body -> (Bool, Double)? in
                var unit = apus_filter_unit()
                unit.tags_code = tagsCode
                if program.needsRecord {
                    unit.born_timestamp = born
                    unit.store_timestamp = stored
                }
                if program.needsProperties {
                    unit.properties = properties.baseAddress
                    unit.properties_size = UInt32(properties.count)
                }
                if program.needsBody {
                    unit.body = body.baseAddress
                    unit.body_size = UInt32(body.count)
                }
                let units = UnsafeMutablePointer<apus_filter_unit>.allocate(capacity: copies)
                defer { units.deallocate() }
                units.initialize(repeating: unit, count: copies)
                var matched = false
                let start = Self.now()
                for _ in 0..<batches {
                    guard let bits = program.evaluate(units, copies, bitmap) else { return nil }
                    matched = bits[0] & 1 != 0
                }
                return (matched, Double(Self.now() - start) / Double(copies * batches))
            }
        }
        guard let answer else { throw Failed() }
        return answer
    }

    /// The code of a tag, as the consume queue holds it.
    package static func tagsCode(_ tag: String) -> Int64 {
        Array(tag.utf8).withUnsafeBufferPointer { apus_filter_tags_code($0.baseAddress, $0.count) }
    }

    private static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}
