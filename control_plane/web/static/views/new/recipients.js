// The recipients of a sealed file, checked as the server checks them (schemas/sealing/recipients.py): native age
// recipients, which are X25519 keys in Bech32 with a checksum. Rule: pure; an objection is a sentence, "" is none.

const ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATORS = [0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3];
// `age`, spread over two groups of its letters as BIP 173 wants it.
const HEAD = [3, 3, 3, 0, 1, 7, 5];
const CHECKSUM = 6;
const KEY_VALUES = 52;

export function isRecipient(text) {
  if (!text.startsWith("age1")) return false;
  const values = [...text.slice(4)].map((letter) => ALPHABET.indexOf(letter));
  // 32 bytes are 51 values and one bit; the four bits after it are none of the key's.
  return values.length === KEY_VALUES + CHECKSUM && !values.includes(-1) && polymod([...HEAD, ...values]) === 1 && (values[KEY_VALUES - 1] & 15) === 0;
}

function polymod(values) {
  let check = 1;
  for (const value of values) {
    const top = check >>> 25;
    check = ((check & 0x1ffffff) << 5) ^ value;
    GENERATORS.forEach((generator, bit) => (check ^= (top >>> bit) & 1 ? generator : 0));
  }
  return check >>> 0;
}

// Why no file can be sealed as the form has it.
export function objectionTo({ encrypt_to: recipients, compression, on_change, after }) {
  if (!recipients.length) return "";
  const wrong = recipients.find((one) => !isRecipient(one));
  if (wrong) return `${wrong} is no age recipient (age1…, as age-keygen prints it): a character is wrong or missing`;
  if (compression !== "none") return "A sealed file is not compressed: choose no compression";
  if (on_change !== "fail") return "A file that grows cannot be sealed: if it changes meanwhile, the upload must fail";
  return after === "keep" ? "" : "A file that was sealed stays on the device, since the device cannot compare its object with it";
}
