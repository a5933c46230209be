import Foundation
import RemotingProtocol

/// One frame that Apache RocketMQ's client, broker, name server or tool sent, with the capture's name for it.
struct GoldenFrame: CustomStringConvertible {
    var name: String
    var bytes: [UInt8]

    var description: String { "\(self.name) (\(self.bytes.count) bytes)" }

    static let v4 = Self.load("frames-4.9.8")
    static let v5 = Self.load("frames-5.3.3")
    static let all = Self.v4 + Self.v5

    /// Lines of `name ⇥ direction ⇥ base64`.
    private static func load(_ file: String) -> [GoldenFrame] {
        guard let url = Bundle.module.url(forResource: file, withExtension: "tsv", subdirectory: "Fixtures"),
            let text = try? String(contentsOf: url, encoding: .utf8)
        else { return [] }
        return text.split(separator: "\n").compactMap { line in
            let words = line.split(separator: "\t")
            guard words.count == 3, let data = Data(base64Encoded: String(words[2])) else { return nil }
            return GoldenFrame(name: String(words[0]), bytes: [UInt8](data))
        }
    }

    func command() throws -> RemotingCommand {
        try self.bytes.withUnsafeBytes { try RemotingCommand(decoding: $0) }
    }

    /// The frames of one name, decoded.
    static func commands(_ name: String) throws -> [RemotingCommand] {
        try Self.all.filter { $0.name == name }.map { try $0.command() }
    }
}

/// A frame around a header given as text.
func jsonFrame(_ header: String, body: [UInt8] = []) -> [UInt8] {
    frame(serialization: 0, header: Array(header.utf8), body: body)
}

func frame(serialization: UInt8, header: [UInt8], body: [UInt8] = []) -> [UInt8] {
    func word(_ value: UInt32) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
    return word(UInt32(4 + header.count + body.count)) + word(UInt32(header.count) | UInt32(serialization) << 24)
        + header + body
}

/// Parses and hands the frame to `use` while it is valid.
@discardableResult
func withFrame<R>(_ bytes: [UInt8], _ use: (RemotingFrame) throws -> R) throws -> R {
    let scratch = HeaderScratch()
    return try bytes.withUnsafeBytes { try use(try RemotingFrame.parse($0, scratch: scratch)) }
}

extension UnsafeRawBufferPointer {
    var text: String { String(decoding: self, as: UTF8.self) }
}
