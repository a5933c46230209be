import Glibc

/// How a request header is written: RocketMQ's two serializations.
package enum HeaderForm: String, Sendable, CaseIterable {
    case json
    case binary
}

/// A request encoded once; each sending copies it and overwrites the few bytes that differ.
///
/// All varying fields have a fixed width. The opaque is 10 digits (JSON) or 4 bytes. Timestamps have 13 digits, queue
/// offsets 19, unique keys 32 hex digits.
struct FrameTemplate {
    private(set) var bytes: [UInt8] = []
    private(set) var opaquePosition = 0
    private(set) var opaqueIsText = true
    /// Position of the value of each header field that was asked for.
    private(set) var fieldPositions: [String: Int] = [:]
    /// Where the body starts in the frame.
    private(set) var bodyPosition = 0

    /// - Parameter fields: in wire order; a value that will be patched must already have its final width.
    init(code: Int, form: HeaderForm, fields: [(name: String, value: String)], body: [UInt8]) {
        var header: [UInt8] = []
        var positions: [String: Int] = [:]
        switch form {
        case .json:
            header += Array("{\"code\":\(code),\"extFields\":{".utf8)
            for (index, field) in fields.enumerated() {
                header += Array((index == 0 ? "\"" : ",\"").utf8) + Array(field.name.utf8) + Array("\":\"".utf8)
                positions[field.name] = header.count
                header += jsonEscaped(field.value) + Array("\"".utf8)
            }
            header += Array("},\"flag\":0,\"language\":\"JAVA\",\"opaque\":".utf8)
            opaquePosition = 8 + header.count
            opaqueIsText = true
            header += Array("1000000000,\"serializeTypeCurrentRPC\":\"JSON\",\"version\":409}".utf8)
        case .binary:
            // code 2 · language 1 · version 2 · opaque 4 · flag 4 · remark length 4 · fields length 4 · fields
            appendBigEndian(UInt16(code), to: &header)
            header.append(0)
            appendBigEndian(UInt16(409), to: &header)
            opaquePosition = 8 + header.count
            opaqueIsText = false
            appendBigEndian(UInt32(0), to: &header)
            appendBigEndian(UInt32(0), to: &header)
            appendBigEndian(UInt32(0), to: &header)
            var encoded: [UInt8] = []
            let base = header.count + 4
            for field in fields {
                appendBigEndian(UInt16(field.name.utf8.count), to: &encoded)
                encoded += Array(field.name.utf8)
                appendBigEndian(UInt32(field.value.utf8.count), to: &encoded)
                positions[field.name] = base + encoded.count
                encoded += Array(field.value.utf8)
            }
            appendBigEndian(UInt32(encoded.count), to: &header)
            header += encoded
        }
        bytes.reserveCapacity(8 + header.count + body.count)
        appendBigEndian(UInt32(4 + header.count + body.count), to: &bytes)
        appendBigEndian(UInt32(header.count) | (form == .binary ? 1 << 24 : 0), to: &bytes)
        bytes += header
        bodyPosition = bytes.count
        bytes += body
        fieldPositions = positions.mapValues { 8 + $0 }
    }

    /// Writes the request's number into a copy of this frame.
    func patchOpaque(_ frame: UnsafeMutableRawBufferPointer, _ opaque: UInt32) {
        if opaqueIsText {
            writeDigits(frame, at: opaquePosition, width: 10, UInt64(opaque))
        } else {
            frame.storeBytes(of: opaque.bigEndian, toByteOffset: opaquePosition, as: UInt32.self)
        }
    }
}

/// Decimal digits with leading zeros.
func writeDigits(_ frame: UnsafeMutableRawBufferPointer, at position: Int, width: Int, _ value: UInt64) {
    var rest = value
    var index = position + width - 1
    while index >= position {
        let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
        frame[index] = 0x30 + UInt8(truncatingIfNeeded: digit)
        rest = quotient
        index -= 1
    }
}

/// Upper-case hex digits with leading zeros.
func writeHex(_ frame: UnsafeMutableRawBufferPointer, at position: Int, width: Int, _ value: UInt64) {
    var rest = value
    var index = position + width - 1
    while index >= position {
        let digit = UInt8(truncatingIfNeeded: rest & 15)
        frame[index] = digit < 10 ? 0x30 + digit : 0x37 + digit
        rest >>= 4
        index -= 1
    }
}

func appendBigEndian(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
}

private func jsonEscaped(_ text: String) -> [UInt8] {
    var out: [UInt8] = []
    for byte in text.utf8 {
        switch byte {
        case 0x22, 0x5C: out += [0x5C, byte]
        case 0..<0x20:
            let hex = Array("0123456789abcdef".utf8)
            out += Array("\\u00".utf8) + [hex[Int(byte >> 4)], hex[Int(byte & 15)]]
        default: out.append(byte)
        }
    }
    return out
}
