import StoreFormat
import Testing

@Suite struct StoreFileNameTests {
    @Test func fileNames() {
        #expect(StoreFileName.of(offset: 0) == "00000000000000000000")
        #expect(StoreFileName.of(offset: 1 << 40) == "00000001099511627776")
        #expect(StoreFileName.offset(of: "00000001099511627776") == 1 << 40)
        #expect(StoreFileName.offset(of: "0000000109951162777x") == nil && StoreFileName.offset(of: "1") == nil)
    }
}
