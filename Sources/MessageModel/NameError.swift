/// Why text is the name of no topic and no group.
package struct NameError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What the text was to name.
    package enum Kind: String, Sendable {
        case topic
        case group
    }

    /// What is wrong with the text.
    package enum Problem: Equatable, Sendable {
        /// It is empty, or white space only.
        case blank
        /// It has a byte names cannot have; the first one.
        case illegalByte(UInt8)
        /// Lengths in bytes of UTF-8.
        case tooLong(bytes: Int, longest: Int)
        /// Its bytes are no text.
        case notUTF8
    }

    /// What the text was to name.
    package let kind: Kind
    /// What is wrong with the text.
    package let problem: Problem
    /// Whether the stricter rule for new names was applied.
    package let isNew: Bool

    init(_ kind: Kind, _ problem: Problem, isNew: Bool) {
        self.kind = kind
        self.problem = problem
        self.isNew = isNew
    }

    /// RocketMQ's remark, with what it leaves out. The name itself is not in it: it may forge lines of a log.
    package var description: String {
        switch problem {
        case .blank: "The specified \(kind) is blank."
        case .illegalByte(let byte) where isNew:
            "The specified \(kind) contains illegal characters, allowing only \(NameRules.pattern)"
                + " (the first is 0x\(String(byte, radix: 16)))"
        case .illegalByte(let byte):
            "The specified \(kind) contains illegal characters: byte 0x\(String(byte, radix: 16)) cannot be part of"
                + " a folder's name there"
        case .tooLong(let bytes, let longest):
            "The specified \(kind) is longer than \(kind) max length. (\(bytes) bytes, at most \(longest))"
        case .notUTF8: "The specified \(kind) is no UTF-8 text."
        }
    }
}
