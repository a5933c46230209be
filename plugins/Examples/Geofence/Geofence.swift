// An example plugin in Swift. A subscription of the type GEOFENCE is a position and a distance in metres, such as
// "30.27 120.15 5000". It gets the messages whose properties `lat` and `lon` lie within that distance of the position.
// Build it with the one command of plugins/README.md.

public import CFilterPlugin
internal import Glibc

private final class Fence {
    let latitude: Double
    let longitude: Double
    let metres: Double

    init(latitude: Double, longitude: Double, metres: Double) {
        self.latitude = latitude
        self.longitude = longitude
        self.metres = metres
    }

    /// Haversine; the mean radius of the earth is near enough for a fence.
    func contains(latitude other: Double, longitude otherLongitude: Double) -> Bool {
        let radian = Double.pi / 180
        let a = sin((other - latitude) * radian / 2)
        let b = sin((otherLongitude - longitude) * radian / 2)
        let h = a * a + cos(latitude * radian) * cos(other * radian) * b * b
        return 2 * 6_371_000 * asin(min(1, h.squareRoot())) <= metres
    }
}

private func refuse(
    _ compiled: UnsafeMutablePointer<apus_filter_compiled>, at position: Int, _ reason: String
) -> Int32 {
    apus_filter_refuse(compiled, position, reason, reason.utf8.count)
}

private func compile(
    _ expression: UnsafePointer<CChar>?, _ length: Int, _ compiled: UnsafeMutablePointer<apus_filter_compiled>?
) -> Int32 {
    guard let compiled else { return APUS_FILTER_FAILED }
    let text = String(decoding: UnsafeRawBufferPointer(start: expression, count: length), as: UTF8.self)
    let words = text.split(separator: " ")
    guard words.count == 3, let latitude = Double(words[0]), let longitude = Double(words[1]),
        let metres = Double(words[2])
    else { return refuse(compiled, at: 0, "write: LATITUDE LONGITUDE METRES") }
    guard abs(latitude) <= 90, abs(longitude) <= 180 else {
        return refuse(compiled, at: 0, "there is no such place on earth")
    }
    let fence = Fence(latitude: latitude, longitude: longitude, metres: metres)
    compiled.pointee.program = Unmanaged.passRetained(fence).toOpaque()
    return APUS_FILTER_OK
}

/// A property as a number; allocates nothing.
private func number(_ unit: UnsafePointer<apus_filter_unit>, _ name: StaticString) -> Double? {
    var length = 0
    let found = name.withUTF8Buffer { name in
        name.withMemoryRebound(to: CChar.self) { apus_filter_property(unit, $0.baseAddress, $0.count, &length) }
    }
    guard let value = found, length > 0, length < 64 else { return nil }
    return withUnsafeTemporaryAllocation(byteCount: length + 1, alignment: 1) { room in
        room.copyMemory(from: UnsafeRawBufferPointer(start: value, count: length))
        room[length] = 0
        let text = room.assumingMemoryBound(to: CChar.self)
        guard let start = text.baseAddress else { return nil }
        var end: UnsafeMutablePointer<CChar>?
        let number = strtod(start, &end)
        return end == start + length ? number : nil
    }
}

private func matchBatch(
    _ program: UnsafeMutableRawPointer?, _ units: UnsafePointer<apus_filter_unit>?, _ count: UInt32,
    _ bitmap: UnsafeMutablePointer<UInt8>?
) -> Int32 {
    guard let program, let units, let bitmap else { return APUS_FILTER_FAILED }
    let fence = Unmanaged<Fence>.fromOpaque(program).takeUnretainedValue()
    for index in 0..<count {
        let unit = units + Int(index)
        guard let latitude = number(unit, "lat"), let longitude = number(unit, "lon") else { continue }
        if fence.contains(latitude: latitude, longitude: longitude) { apus_filter_set(bitmap, index) }
    }
    return APUS_FILTER_OK
}

private func release(_ program: UnsafeMutableRawPointer?) {
    guard let program else { return }
    Unmanaged<Fence>.fromOpaque(program).release()
}

/// Made once and never freed: the host may look at it until the process ends.
private nonisolated(unsafe) let table = apus_filter_make_plugin(
    "geofence", "GEOFENCE", "1.0", UInt64(APUS_FILTER_NEEDS_PROPERTIES), compile, matchBatch, release, nil)

/// The one exported symbol: see apus_filter.h.
@c(apus_filter_plugin_entry)
public func geofencePluginEntry(_ host: UnsafePointer<apus_filter_host>?) -> UnsafePointer<apus_filter_plugin>? {
    table
}
