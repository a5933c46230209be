import LinuxSystem

/// A command for people to copy into a shell. What is interpolated is one argument of it, whatever it holds: names
/// come from clients, and a shell would run what is in them.
struct ShellCommand: Equatable, Sendable, ExpressibleByStringInterpolation {
    let text: String

    init(stringLiteral text: String) { self.text = text }

    init(stringInterpolation parts: Parts) { text = parts.text }

    struct Parts: StringInterpolationProtocol {
        fileprivate var text = ""

        init(literalCapacity: Int, interpolationCount: Int) { text.reserveCapacity(literalCapacity) }

        mutating func appendLiteral(_ literal: String) { text += literal }

        mutating func appendInterpolation(_ argument: String) { text += ShellCommand.quoted(argument) }

        mutating func appendInterpolation(_ number: Int) { text += String(number) }
    }

    /// As a shell takes it for one argument; control characters as escapes.
    private static func quoted(_ argument: String) -> String {
        let isPlain = argument.utf8.allSatisfy { byte in
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
                || (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte)
                || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) || "_./:@%+,=-".utf8.contains(byte)
        }
        guard !isPlain || argument.isEmpty else { return argument }
        return "'" + PlainText.escaped(argument).replacing("'", with: "'\\''") + "'"
    }
}
