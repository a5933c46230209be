/// Text that others wrote, made fit for a terminal, the journal and a line of a log.
///
/// Control characters would forge lines and steer a terminal; overrides of the writing direction would show a text in
/// another order than it has. Both are shown as escapes: `\n`, `\r`, `\t`, and `\u001b` for the rest, which stay valid
/// in the strings of a JSON text.
package enum PlainText {
    /// - Parameters:
    ///   - bytesMax: a longer text is cut, and ends with how much of it is missing.
    ///   - keepsLines: line feeds and tabulators stay as they are, for texts of several lines.
    package static func escaped(_ text: String, bytesMax: Int = .max, keepsLines: Bool = false) -> String {
        guard text.utf8.count > bytesMax || !isPlain(text, keepsLines) else { return text }
        var out = ""
        var taken = 0
        for scalar in text.unicodeScalars {
            let count = UTF8.width(scalar)
            guard taken + count <= bytesMax else { break }
            taken += count
            if isHarmful(scalar.value), !(keepsLines && (scalar == "\n" || scalar == "\t")) {
                append(scalar, to: &out)
            } else {
                out.unicodeScalars.append(scalar)
            }
        }
        let missing = text.utf8.count - taken
        return missing > 0 ? out + "… (\(missing) bytes more)" : out
    }

    /// Whether it can stay as it is; decides most texts by their bytes.
    private static func isPlain(_ text: String, _ keepsLines: Bool) -> Bool {
        let isASCII = text.utf8.allSatisfy { byte in
            (0x20..<0x7F).contains(byte) || (keepsLines && (byte == 0x0A || byte == 0x09))
        }
        return isASCII
            || text.unicodeScalars.allSatisfy {
                !isHarmful($0.value) || (keepsLines && ($0 == "\n" || $0 == "\t"))
            }
    }

    private static func isHarmful(_ value: UInt32) -> Bool {
        switch value {
        // C0, DEL and C1: among them ESC and CSI.
        case 0..<0x20, 0x7F...0x9F: true
        // Line and paragraph separator.
        case 0x2028, 0x2029: true
        // Marks, embeddings, overrides and isolates of the writing direction.
        case 0x061C, 0x200E, 0x200F, 0x202A...0x202E, 0x2066...0x2069: true
        default: false
        }
    }

    private static func append(_ scalar: Unicode.Scalar, to out: inout String) {
        switch scalar {
        case "\n": out += "\\n"
        case "\r": out += "\\r"
        case "\t": out += "\\t"
        default:
            let digits = String(scalar.value, radix: 16)
            out += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
    }
}
