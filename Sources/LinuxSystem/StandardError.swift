import Glibc

/// Text on descriptor 2 in one write, so that lines of several processes do not mix.
package enum StandardError {
    /// Writes all of it; without stderr, nothing.
    package static func write(_ text: String) {
        var text = text
        text.withUTF8 { bytes in
            var left = UnsafeRawBufferPointer(bytes)
            while !left.isEmpty {
                let count = Glibc.write(2, left.baseAddress, left.count)
                // Without stderr there is nowhere to report it.
                if count < 0 && errno != EINTR { return }
                left = UnsafeRawBufferPointer(rebasing: left.dropFirst(max(count, 0)))
            }
        }
    }
}
