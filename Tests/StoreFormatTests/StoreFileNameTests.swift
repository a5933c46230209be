import StoreFormat
import Testing

@Suite struct StoreFileNameTests {
    @Test func fileNames() {
        #expect(StoreFileName.of(offset: 0) == "00000000000000000000")
        #expect(StoreFileName.of(offset: 1 << 40) == "00000001099511627776")
        #expect(StoreFileName.offset(of: "00000001099511627776") == 1 << 40)
        #expect(StoreFileName.offset(of: "0000000109951162777x") == nil && StoreFileName.offset(of: "1") == nil)
    }

    /// Names up to what a number holds: lengths are added to what they name.
    @Test func noStoreComesThere() {
        #expect(StoreFileName.offset(of: StoreFileName.of(offset: 1 << 60)) == 1 << 60)
        for name in [StoreFileName.of(offset: (1 << 60) + 1), "09223372036854775807", "99999999999999999999"] {
            #expect(StoreFileName.offset(of: name) == nil && StoreFileName.isBeyondAll(name), "\(name)")
        }
        #expect(!StoreFileName.isBeyondAll("00000000001073741824") && !StoreFileName.isBeyondAll("x"))
    }
}
