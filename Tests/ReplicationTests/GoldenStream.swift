import Foundation
import NIOCore

/// The recorded HA connection between a slave and a master of Apache RocketMQ 4.9.8.
struct GoldenStream {
    struct Piece: Decodable {
        var dir: String?
        var hex: String?
    }

    /// What one side wrote, in order; `fromSlave` tells which side.
    let conversation: [(fromSlave: Bool, bytes: [UInt8])]

    init() throws {
        var folder = URL(fileURLWithPath: #filePath)
        while !FileManager.default.fileExists(atPath: folder.appendingPathComponent("Package.swift").path) {
            folder.deleteLastPathComponent()
        }
        let file = folder.appendingPathComponent("Tests/Fixtures/ha-stream-4.9.8.jsonl")
        let text = try String(contentsOf: file, encoding: .utf8)
        conversation = try text.split(separator: "\n").compactMap { line in
            let piece = try JSONDecoder().decode(Piece.self, from: Data(line.utf8))
            guard let dir = piece.dir, let hex = piece.hex else { return nil }
            return (dir == "c2s", Self.bytes(hex))
        }
    }

    private static func bytes(_ hex: String) -> [UInt8] {
        var result: [UInt8] = []
        var high: UInt8?
        for digit in hex.utf8 {
            let value = digit < 0x3A ? digit - 0x30 : (digit | 0x20) - 0x61 + 10
            if let first = high {
                result.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return result
    }

    /// Everything the master sent.
    var masterStream: [UInt8] { conversation.filter { !$0.fromSlave }.flatMap(\.bytes) }

    /// The commit log the master sent, from offset 0.
    func log() -> [UInt8] {
        var log: [UInt8] = []
        var stream = ByteBuffer(bytes: masterStream)
        while let offset = stream.readInteger(as: Int64.self), let size = stream.readInteger(as: Int32.self),
            let body = stream.readBytes(length: Int(size))
        {
            if size > 0 { precondition(offset == Int64(log.count), "the recorded stream has a hole") }
            log += body
        }
        return log
    }
}
