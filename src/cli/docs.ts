/** The page of all commands, made from the values that declare them. */
import { format } from "prettier";
