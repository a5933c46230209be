import StoreFormat
import Testing

@Suite struct TagsCodeTests {
    /// Values computed by Java's String.hashCode.
    @Test func tagsCodesAreJavaHashes() {
        #expect(TagsCode.of("") == 0)
        #expect(TagsCode.of("Aa") == 2112 && TagsCode.of("BB") == 2112)
        #expect(TagsCode.of("TagA") == 2_598_919)
        #expect(TagsCode.of("polygenelubricants") == Int64(Int32.min))
        #expect(TagsCode.of("你好") == 652_829)
        #expect(TagsCode.of("🚀") == 1_773_027)
        #expect(IndexLayout.keyHash(Int32.min) == 0 && IndexLayout.keyHash(-5) == 5)
    }
}
